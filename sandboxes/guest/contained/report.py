"""What a keeper and its child tell the guest: records of one fixed length over a pipe."""

from __future__ import annotations

import struct

READY, FAILED, NO_DIRECTORY, NO_EXEC, EXITED = 1, 2, 3, 4, 5
STATUS = struct.Struct("=BiQQI")

"""What runs commands tells the guest: records of one fixed length over a pipe.

``EXITED`` and ``EXITED_LAST`` say that a command has ended and nothing of it is left; after the second no
other one can follow. ``REFUSED`` says that no command could be started at all.
"""

from __future__ import annotations

import os
import struct

READY, FAILED, NO_DIRECTORY, NO_EXEC, EXITED, EXITED_LAST, REFUSED = 1, 2, 3, 4, 5, 6, 7
STATUS = struct.Struct("=BiQQI")


def write(status: int, kind: int, value: int, cpu: int = 0, peak: int = 0, left: int = 0) -> None:
    """Tell the guest."""
    os.write(status, STATUS.pack(kind, value, cpu, peak, left))

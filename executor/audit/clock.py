"""The two clocks a record carries: one to read, one to count with."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

# Goes on while the machine is asleep; where there is no such clock, the one that does not.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Where time comes from. Wall time is a label only; order and durations rest on ``monotonic``."""

    def wall_time(self) -> datetime:
        """Return the time of day, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start, never going back."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def wall_time(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start that go on while the machine is asleep."""
        return time.clock_gettime(_STEADY)

"""What the container's own control group says of memory; version 1, version 2, or none that can be read."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxes.guest.watch import Usage

_STATISTICS = ("/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat")
_EVENTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
_ANONYMOUS = (b"anon", b"total_rss")


def kills() -> int:
    """Return how many processes the kernel has killed here for want of memory."""
    return _number(_EVENTS, (b"oom_kill",)) or 0


def held(usage: Usage) -> int:
    """Return what processes hold, shared pages counted once where the control group tells."""
    anonymous = _number(_STATISTICS, _ANONYMOUS)
    return usage.resident_bytes if anonymous is None else anonymous


def _number(places: tuple[str, ...], names: tuple[bytes, ...]) -> int | None:
    for place in places:
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            rows = os.read(descriptor, 16384).splitlines()
        finally:
            os.close(descriptor)
        for row in rows:
            name, _, value = row.partition(b" ")
            if name in names:
                return int(value)
    return None

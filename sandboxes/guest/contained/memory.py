"""What the container's own control group says of memory: version 1, version 2, or none that can be read."""

from __future__ import annotations

import os

_EVENTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def kills() -> int:
    """Return how many processes the kernel has killed here for want of memory."""
    return _number(_EVENTS, b"oom_kill") or 0


def _number(places: tuple[str, ...], wanted: bytes) -> int | None:
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
            if name == wanted:
                return int(value)
    return None

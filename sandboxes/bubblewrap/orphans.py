"""End what a broker left behind that was killed in the middle of a start.

bubblewrap forks, and the child waits for its parent to map the uids before it asks to die with that parent.
When the parent is killed in that instant the child waits for ever. It holds nothing and runs nothing, but it
is there; the next broker of this user ends it. A living sandbox is never mistaken for one: its bubblewrap has
a child, and so has that child's parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from sandboxes.bubblewrap.image import START

_NAME = b"bwrap"
_MARK = START.encode()
_OLD_SECONDS = 5.0
_START_FIELD = 19


def end_orphans() -> int:
    """Kill every half-started bubblewrap of ours that is older than a start takes; return their number."""
    parents = _parents()
    busy = set(parents.values())
    idle = [pid for pid in parents if pid not in busy and _is_orphan(pid)]
    return sum(_end(pid) for pid in idle if not _is_ours(parents[pid]))


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (fields := _fields(int(path.name))) is not None:
            found[int(path.name)] = int(fields[1])
    return found


def _is_orphan(pid: int) -> bool:
    fields = _fields(pid)
    if fields is None:
        return False
    started = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    if time.clock_gettime(time.CLOCK_BOOTTIME) - started < _OLD_SECONDS:
        return False
    return _is_ours(pid)


def _is_ours(pid: int) -> bool:
    """Whether a process is a bubblewrap that is to start a guest."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.path.basename(words[0]) == _NAME and _MARK in words


def _end(pid: int) -> bool:
    """Kill a process by a descriptor that still is the orphan it was found to be."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if _is_orphan(pid):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


def _fields(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the state on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return text[text.rindex(b")") + 2 :].split()

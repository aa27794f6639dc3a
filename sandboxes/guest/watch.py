"""Look at what the processes of each cell use: this holds memory, processes and CPU without cgroups."""

from __future__ import annotations

import os

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Usage:
    """What one cell uses now, its init not counted."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.threads = 0
        self.resident_bytes = 0
        self.cpu_seconds = 0.0


def usage_by_cell(inits: set[int]) -> dict[int, Usage]:
    """Return the usage below each of the given init processes."""
    parents: dict[int, int] = {}
    rows: dict[int, tuple[int, int, int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat_fields(name)
            if fields is not None:
                pid = int(name)
                parents[pid] = int(fields[1])
                rows[pid] = (int(fields[17]), int(fields[21]), sum(map(int, fields[11:15])))
    found = {pid: Usage() for pid in inits}
    for pid, (threads, pages, ticks) in rows.items():
        owner = _owner(pid, parents, inits)
        if owner is None:
            continue
        usage = found[owner]
        usage.cpu_seconds += ticks / _TICKS_A_SECOND
        if pid != owner:
            usage.pids.append(pid)
            usage.threads += threads
            usage.resident_bytes += pages * _PAGE_BYTES
    return found


def proportional_bytes(pids: list[int]) -> int:
    """Return the memory of processes, shared pages counted once (PSS); resident size where that is hidden."""
    return sum(map(_proportional_bytes, pids))


def free_blocks_and_inodes(path: str) -> tuple[int, int]:
    """Return how much of a mounted file system is free."""
    status = os.statvfs(path)
    return status.f_bfree, status.f_ffree


def used_bytes(path: str) -> int:
    """Return how many bytes of a mounted file system are in use."""
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _stat_fields(name: str) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the state on; the command's name may hold anything."""
    raw = _read("/proc/" + name + "/stat")
    return None if raw is None else raw[raw.rindex(b")") + 2 :].split()


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, 4096) or None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _owner(pid: int, parents: dict[int, int], inits: set[int]) -> int | None:
    while pid > 1:
        if pid in inits:
            return pid
        pid = parents.get(pid, 0)
    return None


def _proportional_bytes(pid: int) -> int:
    rollup = _read("/proc/%d/smaps_rollup" % pid)
    if rollup is not None:
        for line in rollup.splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    fields = _stat_fields(str(pid))
    return 0 if fields is None else int(fields[21]) * _PAGE_BYTES

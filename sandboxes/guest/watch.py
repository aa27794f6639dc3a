"""Look at what the processes of each cell use: this holds memory, processes and CPU without cgroups."""

from __future__ import annotations

import os

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# A page table entry takes 8 bytes for each page that is mapped.
_TABLE_SHARE = _PAGE_BYTES // 8
# What a socket's queues hold when the filter leaves their size alone (net.core.wmem_default), and how many
# sockets are too few to matter. A command with more is charged as if all of them were full.
_SOCKET_BYTES = 208 * 1024
_FEW_SOCKETS = 64


class Usage:
    """What one cell uses now, its init not counted; CPU time is of all commands that the cell has served."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.threads = 0
        self.resident_bytes = 0
        self.mapped_bytes = 0
        self.cpu_seconds = 0.0


def usage_by_cell(inits: set[int]) -> dict[int, Usage]:
    """Return the usage below each of the given init processes."""
    parents: dict[int, int] = {}
    rows: dict[int, tuple[int, int, int, int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat_fields(name)
            if fields is not None:
                pid = int(name)
                parents[pid] = int(fields[1])
                # Of an init only what those took that it has collected: its own work is not the command's.
                ticks = sum(map(int, fields[13 if pid in inits else 11 : 15]))
                rows[pid] = (int(fields[17]), int(fields[20]), int(fields[21]), ticks)
    found = {pid: Usage() for pid in inits}
    for pid, (threads, mapped, pages, ticks) in rows.items():
        owner = _owner(pid, parents, inits)
        if owner is None:
            continue
        usage = found[owner]
        usage.cpu_seconds += ticks / _TICKS_A_SECOND
        if pid != owner:
            usage.pids.append(pid)
            usage.threads += threads
            usage.resident_bytes += pages * _PAGE_BYTES
            usage.mapped_bytes += mapped
    return found


def held_bytes(usage: Usage, most: int) -> int:
    """Return the memory that a cell holds: pages, page tables and the queues of sockets.

    What costs more to find out is only looked at where the cheap upper bound is above ``most``: the size of
    page tables, and pages with shared ones counted once (PSS).
    """
    pages, queues = usage.resident_bytes, _queue_bytes()
    tables = usage.mapped_bytes // _TABLE_SHARE
    if pages + queues + tables > most:
        tables = sum(map(_table_bytes, usage.pids))
    if pages + queues + tables > most:
        pages = sum(map(_proportional_bytes, usage.pids))
    return pages + queues + tables


def free_blocks_and_inodes(path: str) -> tuple[int, int]:
    """Return how much of a mounted file system is free; one that counts no files is never full of them."""
    status = os.statvfs(path)
    return status.f_bfree, status.f_ffree if status.f_files else 1


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


def _queue_bytes() -> int:
    """Bound what the sockets of this network hold, also those that are only on their way in a message."""
    words = (_read("/proc/net/sockstat") or b"").split()
    sockets = int(words[2]) if len(words) > 2 else 0
    return max(0, sockets - _FEW_SOCKETS) * _SOCKET_BYTES


def _table_bytes(pid: int) -> int:
    for line in (_read("/proc/%d/status" % pid) or b"").splitlines():
        if line.startswith(b"VmPTE:"):
            return int(line.split()[1]) * 1024
    return 0


def _proportional_bytes(pid: int) -> int:
    rollup = _read("/proc/%d/smaps_rollup" % pid)
    if rollup is not None:
        for line in rollup.splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    fields = _stat_fields(str(pid))
    return 0 if fields is None else int(fields[21]) * _PAGE_BYTES

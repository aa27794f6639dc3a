"""How much a layer on an ordinary directory holds: there the limit is watched, not held by a file system."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import anyio
import anyio.to_thread

from sandboxes.base import ResourceLimits
from sandboxes.workspace.cursor import TreeCursor, status_of
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.names import list_names

DiskLimit = Literal["disk", "inodes"]

_BLOCK_BYTES: Final = 512
_LOOK_SECONDS: Final = 0.1


def usage(layer: int) -> tuple[int, int]:
    """Return the bytes and the number of entries below an open directory, as far as they can be read."""
    size, entries = 0, 0
    with TreeCursor(layer) as cursor:
        pending = [list_names(cursor.fd)]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    cursor.leave()
                continue
            name = pending[-1].pop()
            status = status_of(cursor.fd, name)
            if status is None:
                continue
            size += status.st_blocks * _BLOCK_BYTES
            entries += 1
            if stat.S_ISDIR(status.st_mode):
                try:
                    cursor.enter(name)
                except OSError:
                    continue
                pending.append(list_names(cursor.fd))
    return size, entries


def limit_reached(
    layer: int, limits: ResourceLimits, *, before: tuple[int, int] = (0, 0)
) -> DiskLimit | None:
    """Return the limit that a layer has passed since it held what it did before, or None.

    Also None when it cannot be read now: the next look tells.
    """
    try:
        size, entries = usage(layer)
    except (OSError, LayerUnreadable):
        return None
    if size > max(limits.disk_bytes, before[0]):
        return "disk"
    return "inodes" if entries > max(limits.inodes, before[1]) else None


async def watch(
    layer: int, limits: ResourceLimits, stop: Callable[[DiskLimit], None], *, before: tuple[int, int]
) -> None:
    """Look at a layer now and then, and say once that it has passed a limit."""
    while True:
        passed = await anyio.to_thread.run_sync(partial(limit_reached, before=before), layer, limits)
        if passed is not None:
            stop(passed)
            return
        await anyio.sleep(_LOOK_SECONDS)


def free_files(layer: int) -> int:
    """Return how many files the file system of a layer has room for."""
    return os.fstatvfs(layer).f_ffree

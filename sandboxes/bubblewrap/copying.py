"""Copy the user's tree for a sandbox that can be shown it in no other way.

What the owner of the tree owns belongs to the sandbox's uid in the copy, and what others own to root: the
sandbox may read and write exactly what an id-mapped mount would have let it. Links are copied and never
followed, FIFOs, sockets and devices left out. What vanishes during the copying is not in the copy.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sandboxes.workspace.cursor import TreeCursor, open_file, status_of
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.layers import copy_bytes
from sandboxes.workspace.names import list_names

MOST_BYTES = 1024 * 1024 * 1024
MOST_ENTRIES = 256 * 1024

_PAGE_BYTES = 4096
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How much a tree holds, or a copy may hold; bytes as a tmpfs counts them, in whole pages."""

    size_bytes: int
    entries: int

    def __str__(self) -> str:
        return f"{-(-self.size_bytes // 1024):,} KiB in {self.entries:,} entries"

    def plus(self, status: os.stat_result) -> Extent:
        """Return the extent with one more entry."""
        pages = -(-status.st_size // _PAGE_BYTES) if stat.S_ISREG(status.st_mode) else 0
        return Extent(size_bytes=self.size_bytes + pages * _PAGE_BYTES, entries=self.entries + 1)

    def fits(self, room: Extent) -> bool:
        """Say whether this is no more than there is room for."""
        return self.size_bytes <= room.size_bytes and self.entries <= room.entries


class TooLarge(Exception):
    """The tree holds more than the copy may; nothing of the copy can be used."""


def room_here() -> Extent:
    """Return how much a copy may hold: it lies in memory, half of which is left to everything else."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            available = int(value.split()[0]) * 1024
            return Extent(size_bytes=min(MOST_BYTES, available // 2), entries=MOST_ENTRIES)
    return Extent(size_bytes=MOST_BYTES, entries=MOST_ENTRIES)


def extent_of(tree: int) -> Extent:
    """Measure the tree below an open directory, as far as it can be read."""
    found = Extent(size_bytes=0, entries=0)
    with TreeCursor(tree) as cursor:
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
            found = found.plus(status)
            if stat.S_ISDIR(status.st_mode) and _enter(cursor, name):
                pending.append(list_names(cursor.fd))
    return found


def copy_tree(source: int, target: int, *, shown_as: int, room: Extent) -> None:
    """Copy the tree below one open directory into another, empty one, with modes and times.

    Raises:
        TooLarge: There is not enough room.
        OSError: Something cannot be read.
        LayerUnreadable: A directory was moved while it was copied.
    """
    owner = os.fstat(source)
    copying = _Copying(owner=(owner.st_uid, owner.st_gid), shown_as=shown_as, room=room)
    try:
        with TreeCursor(source) as below, TreeCursor(target) as above:
            copying.copy(below, above)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise TooLarge from error
        raise


class _Copying:
    def __init__(self, *, owner: tuple[int, int], shown_as: int, room: Extent) -> None:
        self._owner = owner
        self._shown_as = shown_as
        self._room = room
        self._copied = Extent(size_bytes=0, entries=0)

    def copy(self, below: TreeCursor, above: TreeCursor) -> None:
        pending = [list_names(below.fd)]
        while pending:
            if pending[-1]:
                if self._copy_entry(below, above, pending[-1].pop()):
                    pending.append(list_names(below.fd))
                continue
            self._finish(above.fd, os.fstat(below.fd))
            pending.pop()
            if pending:
                below.leave()
                above.leave()

    def _copy_entry(self, below: TreeCursor, above: TreeCursor, name: bytes) -> bool:
        """Copy one entry; True when both cursors stand in a new directory that is still to be filled."""
        status = status_of(below.fd, name)
        if status is None:
            return False
        if stat.S_ISDIR(status.st_mode) and _enter(below, name):
            self._count(status)
            os.mkdir(name, 0o700, dir_fd=above.fd)
            above.enter(name)
            return True
        if stat.S_ISLNK(status.st_mode):
            self._count(status)
            self._copy_link(below.fd, above.fd, name, status)
        elif stat.S_ISREG(status.st_mode):
            self._copy_file(below.fd, above.fd, name)
        return False

    def _copy_link(self, below: int, above: int, name: bytes, status: os.stat_result) -> None:
        try:
            content = os.readlink(name, dir_fd=below)
        except OSError as error:
            if error.errno in _GONE or error.errno == errno.EINVAL:
                return
            raise
        os.symlink(content, name, dir_fd=above)
        os.chown(name, *self._owner_in_copy(status), dir_fd=above, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=above, follow_symlinks=False)

    def _copy_file(self, below: int, above: int, name: bytes) -> None:
        try:
            reading = open_file(below, name)
        except LayerUnreadable:
            return
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            status = os.fstat(reading)
            self._count(status)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            writing = os.open(name, flags, 0o600, dir_fd=above)
            try:
                copy_bytes(reading, writing)
                self._finish(writing, status)
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def _finish(self, descriptor: int, status: os.stat_result) -> None:
        os.fchown(descriptor, *self._owner_in_copy(status))
        os.fchmod(descriptor, status.st_mode & 0o777)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _owner_in_copy(self, status: os.stat_result) -> tuple[int, int]:
        """Return the new owner and group; -1 leaves root's, which nothing in the sandbox is."""
        if status.st_uid == self._owner[0]:
            return self._shown_as, self._shown_as
        return -1, self._shown_as if status.st_gid == self._owner[1] else -1

    def _count(self, status: os.stat_result) -> None:
        self._copied = self._copied.plus(status)
        if not self._copied.fits(self._room):
            raise TooLarge


def _enter(cursor: TreeCursor, name: bytes) -> bool:
    """Go down into a directory; False when it is gone or no directory any more."""
    try:
        cursor.enter(name)
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    return True

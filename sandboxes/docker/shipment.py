"""The user's tree on its way to an engine that does not see it: a private copy here, and the same as a tar.

What is copied is what is sent, so what comes back later is compared with exactly that. Links are copied and
never followed. FIFOs and sockets are not sent, only kept here, and devices are left out. Of hidden paths
nothing is sent but an empty file or directory; the copy here has them whole.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Collection, Iterator
from typing import Final, Literal, NamedTuple

from sandboxes.bubblewrap.copying import Extent
from sandboxes.errors import SandboxUnavailable
from sandboxes.workspace.cursor import TreeCursor, open_file, status_of
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.layers import write_all
from sandboxes.workspace.names import list_names

Kind = Literal["file", "directory", "symlink", "other"]

_CHUNK_BYTES: Final = 1 << 20
_BLOCK: Final = tarfile.BLOCKSIZE
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
SOCKET: Final = b"socket"
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Record(NamedTuple):
    """One entry of a tree; ``content`` is a file's digest or a link's target."""

    parts: tuple[bytes, ...]
    kind: Kind
    mode: int
    size: int
    modified_ns: int
    content: bytes


def load(source: int, target: int, *, room: Extent) -> tuple[tuple[Record, ...], Extent]:
    """Copy the tree below one open directory into another, empty one, and tell what it holds.

    Raises:
        SandboxUnavailable: It is more than there is room for, or cannot be read.
    """
    loading = _Loading(room)
    try:
        with TreeCursor(source) as below, TreeCursor(target) as above:
            loading.fill(below, above)
    except (OSError, LayerUnreadable) as error:
        raise SandboxUnavailable(f"the workspace cannot be copied for the engine: {error}") from error
    return tuple(loading.records), loading.extent


def tar_of(
    tree: int, records: Collection[Record], *, hidden: Collection[tuple[bytes, ...]], uid: int
) -> Iterator[bytes]:
    """Give a tar of a loaded tree without its links, piece by piece; everything in it belongs to one uid."""
    with TreeCursor(tree, unlock=0o500) as cursor:
        for record in records:
            cover = next((path for path in hidden if record.parts[: len(path)] == path), None)
            if record.kind in {"symlink", "other"} or (cover is not None and cover != record.parts):
                continue
            size = 0 if cover is not None else record.size
            yield _header(record, size=size, uid=uid)
            if record.kind == "file" and size:
                cursor.move_to(record.parts[:-1])
                yield from _padded(cursor.fd, record.parts[-1], size)
    yield bytes(2 * _BLOCK)


class _Loading:
    def __init__(self, room: Extent) -> None:
        self.records: list[Record] = []
        self.extent = Extent(size_bytes=0, entries=0)
        self._room = room

    def fill(self, below: TreeCursor, above: TreeCursor) -> None:
        pending = [list_names(below.fd)]
        while pending:
            if pending[-1]:
                if self._take(below, above, pending[-1].pop(0)):
                    pending.append(list_names(below.fd))
                continue
            pending.pop()
            if pending:
                status = os.fstat(below.fd)
                name = below.parts[-1]
                below.leave()
                above.leave()
                finish(above.fd, name, stat.S_IMODE(status.st_mode), status.st_mtime_ns)

    def _take(self, below: TreeCursor, above: TreeCursor, name: bytes) -> bool:
        """Copy one entry; True when both cursors stand in a new directory that is still to be filled."""
        status = status_of(below.fd, name)
        if status is None:
            return False
        parts = (*below.parts, name)
        if stat.S_ISDIR(status.st_mode):
            below.enter(name)
            os.mkdir(name, 0o700, dir_fd=above.fd)
            above.enter(name)
            self._note(parts, "directory", status, b"", 0)
            return True
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=below.fd)
            os.symlink(target, name, dir_fd=above.fd)
            self._note(parts, "symlink", status, target, 0)
        if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, dir_fd=above.fd)
            self._note(parts, "other", status, SOCKET if stat.S_ISSOCK(status.st_mode) else b"", 0)
        if stat.S_ISREG(status.st_mode):
            self._take_file(below, above, name)
        return False

    def _take_file(self, below: TreeCursor, above: TreeCursor, name: bytes) -> None:
        reading = open_file(below.fd, name)
        try:
            status = os.fstat(reading)
            writing = os.open(name, NEW_FILE, 0o600, dir_fd=above.fd)
            digest, size = hashlib.sha256(), 0
            try:
                while chunk := os.read(reading, _CHUNK_BYTES):
                    size += len(chunk)
                    self._require_room(size)
                    digest.update(chunk)
                    write_all(writing, chunk)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        finish(above.fd, name, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        self._note((*below.parts, name), "file", status, digest.digest(), size)

    def _note(
        self, parts: tuple[bytes, ...], kind: Kind, status: os.stat_result, content: bytes, size: int
    ) -> None:
        mode = 0o777 if kind == "symlink" else stat.S_IMODE(status.st_mode) & 0o777
        self.records.append(Record(parts, kind, mode, size, status.st_mtime_ns, content))
        self.extent = self.extent.plus(status)
        self._require_room(0)

    def _require_room(self, more: int) -> None:
        found = Extent(size_bytes=self.extent.size_bytes + more, entries=self.extent.entries)
        if not found.fits(self._room):
            raise SandboxUnavailable(
                f"the engine does not share this host's directories, and the workspace is more than a copy "
                f"may hold ({self._room})",
                hint="use an engine on this host, or a smaller workspace",
            )


def finish(directory: int, name: bytes, mode: int, modified_ns: int) -> None:
    """Give a new file or directory its mode and time."""
    descriptor = os.open(name, _READ | os.O_NONBLOCK, dir_fd=directory)
    try:
        os.utime(descriptor, ns=(modified_ns, modified_ns))
        os.fchmod(descriptor, mode & 0o777)
    finally:
        os.close(descriptor)


def _header(record: Record, *, size: int, uid: int) -> bytes:
    info = tarfile.TarInfo(b"/".join(record.parts).decode("utf-8", "surrogateescape"))
    info.mode, info.size, info.uid, info.gid = record.mode, size, uid, uid
    seconds, rest = divmod(record.modified_ns, 1_000_000_000)
    # As text: a float would lose the nanoseconds.
    info.pax_headers = {"mtime": f"{seconds}.{rest:09d}"} if seconds >= 0 else {}
    info.mtime = seconds
    if record.kind == "directory":
        info.type = tarfile.DIRTYPE
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padded(directory: int, name: bytes, size: int) -> Iterator[bytes]:
    with open(open_file(directory, name, unlock=True), "rb", buffering=0) as file:
        left = size
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise LayerUnreadable(f"{name!r} became shorter while it was sent")
            left -= len(chunk)
            yield chunk
    yield bytes(-size % _BLOCK)

"""What lies in a layer: entries of a directory, and the marks that an overlay leaves there.

An overlay's upper directory says "deleted" by a character device 0/0, and "nothing below shows through" by
the attribute ``overlay.opaque`` of a directory; the attribute is in the ``user.`` space for a rootless
overlay and in ``trusted.`` otherwise. Marks that a backend never asks for (``redirect``, ``metacopy``, an
``opaque`` that announces whiteouts by attribute) would make a layer mean something else than it shows: such
a layer is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Literal, NamedTuple

from sandboxes.workspace.cursor import TreeCursor, open_file, status_of
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.names import list_names

EntryKind = Literal["file", "directory", "symlink", "other"]

_SPACES = ("user.overlay.", "trusted.overlay.")
_COPY_BYTES = 1 << 20


class Entry(NamedTuple):
    """One name as it lies in a tree.

    ``mode`` holds the permission bits alone, ``device`` what tells files of kind ``other`` apart, and
    ``holes`` the bytes of a file that take no space.
    """

    name: bytes
    kind: EntryKind
    mode: int
    size: int
    target: bytes | None
    device: tuple[int, int] | None
    inode: tuple[int, int]
    holes: int


def entry_of(directory_fd: int, name: bytes) -> Entry | None:
    """Describe one name, following no link; None when there is nothing.

    Set-user-id, set-group-id and sticky bits are left out: they are never carried over.
    """
    status = status_of(directory_fd, name)
    if status is None:
        return None
    kind = kind_of(status.st_mode)
    return Entry(
        name=name,
        kind=kind,
        mode=status.st_mode & 0o777,
        size=status.st_size if kind == "file" else 0,
        target=os.readlink(name, dir_fd=directory_fd) if kind == "symlink" else None,
        device=(stat.S_IFMT(status.st_mode), status.st_rdev) if kind == "other" else None,
        inode=(status.st_dev, status.st_ino),
        holes=status.st_size - status.st_blocks * 512 if kind == "file" else 0,
    )


def kind_of(mode: int) -> EntryKind:
    """Give the kind of file that a mode says."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def is_whiteout(entry: Entry) -> bool:
    """Say whether an entry of an overlay's upper directory stands for a deletion."""
    return entry.device == (stat.S_IFCHR, 0)


def is_opaque(directory_fd: int) -> bool:
    """Say whether an open upper directory hides all that is below it.

    Raises:
        LayerUnreadable: It carries a mark that no backend makes.
    """
    mark = _mark(directory_fd, "opaque")
    if mark not in {None, b"y"} or _mark(directory_fd, "redirect") is not None:
        raise LayerUnreadable("a directory of the layer is marked as no backend marks one")
    return mark == b"y"


def is_metacopy(file_fd: int) -> bool:
    """Say whether an open upper file has its content elsewhere."""
    return _mark(file_fd, "metacopy") is not None


def copy_tree(source: Path, destination: Path) -> None:
    """Copy regular files, directories and links with their modes, following nothing; leave the rest out."""
    with TreeCursor.at(source) as below, TreeCursor.at(destination) as above:
        pending = [list_names(below.fd)]
        modes: list[int] = []
        while pending:
            if pending[-1]:
                entry = entry_of(below.fd, pending[-1].pop())
                if entry is not None and _copied(below, above, entry):
                    pending.append(list_names(below.fd))
                    modes.append(entry.mode)
                continue
            pending.pop()
            if pending:
                os.fchmod(above.fd, modes.pop())
                below.leave()
                above.leave()


def copy_bytes(source_fd: int, destination_fd: int) -> None:
    """Copy the rest of one open file into another, new one."""
    while chunk := os.read(source_fd, _COPY_BYTES):
        write_sparse(destination_fd, chunk)
    os.ftruncate(destination_fd, os.lseek(destination_fd, 0, os.SEEK_CUR))


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_sparse(fd: int, chunk: bytes) -> None:
    """Write a chunk, or leave a hole if it is all zeros; end the file with ftruncate.

    What a hostile file does not take in the sandbox it must not take on the host.
    """
    if chunk.count(0) == len(chunk):
        os.lseek(fd, len(chunk), os.SEEK_CUR)
        return
    write_all(fd, chunk)


def _copied(below: TreeCursor, above: TreeCursor, entry: Entry) -> bool:
    """Copy one entry; True when both cursors stand in a new directory that is still to be filled."""
    if entry.kind == "symlink" and entry.target is not None:
        os.symlink(entry.target, entry.name, dir_fd=above.fd)
    if entry.kind == "file":
        _copy_file(below.fd, above.fd, entry)
    if entry.kind == "directory":
        os.mkdir(entry.name, 0o700, dir_fd=above.fd)
        below.enter(entry.name)
        above.enter(entry.name)
    return entry.kind == "directory"


def _copy_file(below_fd: int, above_fd: int, entry: Entry) -> None:
    source = open_file(below_fd, entry.name)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(entry.name, flags, 0o600, dir_fd=above_fd)
        try:
            copy_bytes(source, copy)
            os.fchmod(copy, entry.mode)
        finally:
            os.close(copy)
    finally:
        os.close(source)


def _mark(fd: int, name: str) -> bytes | None:
    for space in _SPACES:
        try:
            return os.getxattr(fd, space + name)
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES}:
                raise
    return None

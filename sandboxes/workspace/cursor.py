"""An open directory that moves through a tree one name at a time and never through a link.

Only two descriptors are open however deep the tree is, and no path is ever handed to the kernel whole, so
neither the descriptor limit, nor PATH_MAX, nor Python's recursion limit ends a walk. Going up opens ``..``
and compares device and inode with what was seen on the way down: a directory that was moved meanwhile ends
the walk with an error instead of leading it somewhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from sandboxes.workspace.errors import LayerUnreadable

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _Step(NamedTuple):
    parent: tuple[int, int]
    locked_mode: int | None


class TreeCursor:
    """A place in a tree. Use as a context manager; it closes only its own descriptors.

    With ``unlock`` a directory whose mode denies its owner any of these bits is entered all the same, and
    gets its mode back on the way up: for layers, where a hostile program chose the modes.
    """

    def __init__(self, root_fd: int, *, unlock: int = 0) -> None:
        self._unlock = unlock
        self._names: list[bytes] = []
        self._steps: list[_Step] = []
        self.fd = os.open(".", _DIRECTORY_FLAGS, dir_fd=root_fd)

    @classmethod
    def at(cls, root: Path, *, unlock: int = 0) -> Self:
        """Start at a directory of the host; links in the given path itself are followed."""
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls(root_fd, unlock=unlock)
        finally:
            os.close(root_fd)

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The names that lead from the root to here."""
        return tuple(self._names)

    def enter(self, name: bytes) -> None:
        """Go down into a directory; OSError when there is none of that name, or a link."""
        locked_mode = _unlocked(self.fd, name, self._unlock) if self._unlock else None
        child = open_directory(self.fd, name)
        self._steps.append(_Step(_identity(self.fd), locked_mode))
        self._names.append(name)
        os.close(self.fd)
        self.fd = child

    def leave(self) -> None:
        """Go up to the directory that this one was entered from."""
        name = self._names[-1]
        expected, locked_mode = self._steps[-1]
        parent = os.open("..", _DIRECTORY_FLAGS, dir_fd=self.fd)
        if _identity(parent) != expected:
            os.close(parent)
            raise LayerUnreadable(f"directory {name!r} was moved while it was read")
        self._names.pop()
        self._steps.pop()
        os.close(self.fd)
        self.fd = parent
        if locked_mode is not None:
            set_mode(parent, name, locked_mode)

    def move_to(self, parts: Sequence[bytes]) -> None:
        """Go to another directory of the tree by the shortest way.

        On OSError the cursor stands at the deepest directory that it could reach.
        """
        shared = _shared(self._names, list(parts))
        while len(self._steps) > shared:
            self.leave()
        for part in parts[shared:]:
            self.enter(part)

    def close(self) -> None:
        """Let the descriptor go; directories that were unlocked on the way here get their modes back."""
        if self.fd < 0:
            return
        try:
            while any(step.locked_mode is not None for step in self._steps):
                self.leave()
        finally:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def status_of(directory_fd: int, name: bytes) -> os.stat_result | None:
    """Give the status of one name, following no link; None when there is nothing."""
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_directory(directory_fd: int, name: bytes) -> int:
    """Open a directory by one name."""
    return os.open(name, _DIRECTORY_FLAGS, dir_fd=directory_fd)


def open_file(directory_fd: int, name: bytes, *, unlock: bool = False) -> int:
    """Open a regular file by one name without ever waiting for it.

    Raises:
        LayerUnreadable: It is something else by now.
    """
    try:
        fd = os.open(name, _FILE_FLAGS, dir_fd=directory_fd)
    except PermissionError:
        if not unlock:
            raise
        fd = _open_locked(directory_fd, name)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise LayerUnreadable(f"{name!r} is not a regular file any more")
    return fd


def set_mode(directory_fd: int, name: bytes, mode: int) -> None:
    """Set the mode of a file or directory by one name, whatever its mode is, following no link."""
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        if stat.S_ISLNK(os.fstat(pinned).st_mode):
            raise LayerUnreadable(f"{name!r} is a link")
        # fchmod refuses an O_PATH descriptor; its name in /proc leads to the very same inode.
        os.chmod(f"/proc/self/fd/{pinned}", mode)
    finally:
        os.close(pinned)


def _shared(names: list[bytes], parts: list[bytes]) -> int:
    """Count the leading names that two paths share, by halves: deep trees compare long ones often."""
    low, high = 0, min(len(names), len(parts))
    while low < high:
        middle = (low + high + 1) // 2
        if names[low:middle] == parts[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _open_locked(directory_fd: int, name: bytes) -> int:
    status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise LayerUnreadable(f"{name!r} is not a regular file any more")
    mode = stat.S_IMODE(status.st_mode)
    set_mode(directory_fd, name, mode | stat.S_IRUSR)
    try:
        return os.open(name, _FILE_FLAGS, dir_fd=directory_fd)
    finally:
        set_mode(directory_fd, name, mode)


def _unlocked(directory_fd: int, name: bytes, needed: int) -> int | None:
    """Give a directory's owner the bits that are needed; tell the mode if that changed it."""
    status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or mode & needed == needed or os.geteuid() == 0:
        return None
    set_mode(directory_fd, name, mode | needed)
    return mode


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino

"""The file under a journal: whole writes at the end, a way back, and space held in advance."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Protocol

from executor.audit.errors import JournalError, JournalExists, JournalLocked

_KEEP_SIZE = 0x01  # FALLOC_FL_KEEP_SIZE, linux/falloc.h
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})


class Sink(Protocol):
    """Where records go. Every method raises ``OSError`` when the file system refuses."""

    def write(self, data: bytes) -> int:
        """Append in one system call; return how many bytes went in."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to ``size``, giving back what was reserved beyond."""
        ...

    def reserve(self, start: int, length: int) -> bool:
        """Hold space for a range without changing the file's size; False where that cannot be done."""
        ...

    def sync(self) -> None:
        """Return when everything written is on the disk. May be called from another thread."""
        ...

    def close(self) -> None:
        """Let go of the file and its lock."""
        ...


class FileSink:
    """A locked journal file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._using = threading.Lock()

    def write(self, data: bytes) -> int:
        """Append in one system call; return how many bytes went in."""
        return os.write(self._fd, data)

    def truncate(self, size: int) -> None:
        """Cut the file to ``size``, giving back what was reserved beyond."""
        os.ftruncate(self._fd, size)

    def reserve(self, start: int, length: int) -> bool:
        """Hold space for a range without changing the file's size; False where that cannot be done."""
        if _fallocate is None:
            return False
        if _fallocate(self._fd, _KEEP_SIZE, start, length) == 0:
            return True
        code = ctypes.get_errno()
        if code in _UNSUPPORTED:
            return False
        raise OSError(code, os.strerror(code))

    def sync(self) -> None:
        """Return when everything written is on the disk. May be called from another thread."""
        # Held so that close cannot hand the number to another file in the middle.
        with self._using:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file and its lock. Safe to call twice."""
        with self._using:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def create_locked(path: Path) -> int:
    """Make a new journal file that only this user can read, and lock it.

    Raises:
        JournalExists: There is one.
        JournalLocked: Another process was faster.
        JournalError: The directory does not allow it.
    """
    try:
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise JournalExists(f"{path}: there is a journal already") from error
    except OSError as error:
        raise JournalError(f"{path}: cannot be made: {error.strerror}") from error
    return _locked(fd, path)


def open_locked(path: Path) -> int:
    """Open an existing journal file for appending, and lock it.

    Raises:
        JournalLocked: Another process is writing it.
        JournalError: It is not there or cannot be opened.
    """
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        raise JournalError(f"{path}: cannot be opened: {error.strerror}") from error
    return _locked(fd, path)


def sync_path(path: Path) -> None:
    """Return when a file, or the names in a directory, are on the disk.

    Raises:
        OSError: The disk did not take them.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _locked(fd: int, path: Path) -> int:
    try:
        _lock(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        hint = "one run has one writer; wait until it ends"
        raise JournalLocked(f"{path}: another process is writing this journal", hint=hint) from error
    # The lock is on the file; the name may lead to another by now.
    if not os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
        raise JournalLocked(f"{path}: was replaced while it was being opened")


def _find_fallocate() -> ctypes._NamedFuncPointer | None:
    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        function.restype = ctypes.c_int
    return function


_fallocate = _find_fallocate()

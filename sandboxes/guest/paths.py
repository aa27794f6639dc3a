"""Open paths beneath a directory without ever following a link, and say exactly why when that fails.

openat2 does it in one step. Where it is missing the path is walked one component at a time with O_NOFOLLOW,
which holds the same promise because every step starts from an open directory. Mount points are crossed on
purpose: the only mounts below a workspace are the covers that hide or protect parts of it, and they must hold
for file tools as well.
"""

from __future__ import annotations

import errno
import os
import stat

from sandboxes.guest import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_RESOLVE = system.RESOLVE_BENEATH | system.RESOLVE_NO_SYMLINKS | system.RESOLVE_NO_MAGICLINKS
_COPY_CHUNK_BYTES = 1 << 20
_PATH_MAX = 4096

openat2_missing = False


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open ``path`` below ``root``, following nothing. The descriptor is close-on-exec.

    Raises:
        OSError: As open(2); ELOOP for any symbolic link.
    """
    global openat2_missing
    if not openat2_missing:
        try:
            return system.openat2(root, path, flags, mode, _RESOLVE)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            openat2_missing = True
    return _walk(root, path, flags, mode)


def link_target(root: int, path: bytes, mount: bytes) -> bytes | None:
    """Return where a path leads once its first link is replaced by what it holds; None if that is outside."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    directory = os.dup(root)
    try:
        for index, part in enumerate(parts):
            try:
                content = os.readlink(part, dir_fd=directory)
            except OSError:
                step = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                os.close(directory)
                directory = step
                continue
            return _join(parts[:index], content, parts[index + 1 :], mount)
    finally:
        os.close(directory)
    return path


def is_directory(descriptor: int) -> bool:
    """Whether an open descriptor is a directory."""
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def is_symlink(descriptor: int) -> bool:
    """Whether an O_PATH descriptor is a symbolic link."""
    return stat.S_ISLNK(os.fstat(descriptor).st_mode)


def names(directory: int) -> list[bytes]:
    """Return the sorted names in an open directory, as bytes."""
    return sorted(name.encode("utf-8", "surrogateescape") for name in _listed(directory))


def copy_tree(source: bytes, target: bytes) -> None:
    """Copy a tree into an existing directory: files, links and directories with their modes and times."""
    for name in sorted(os.listdir(source)):
        _copy_entry(source + b"/" + name, target + b"/" + name)


def _listed(directory: int) -> Iterator[str]:
    encoding = os.fsencode("\udcff") == b"\xff"
    for name in os.listdir(directory):
        yield name if encoding else os.fsencode(name).decode("utf-8", "surrogateescape")


def _walk(root: int, path: bytes, flags: int, mode: int) -> int:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts or path.startswith(b"/"):
        raise OSError(errno.EXDEV, "leaves the directory")
    if len(path) >= _PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, "path is too long")
    if not parts:
        return os.open(b".", flags | os.O_CLOEXEC, dir_fd=root)
    directory = os.dup(root)
    try:
        for part in parts[:-1]:
            step = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = step
            if is_symlink(step):
                raise OSError(errno.ELOOP, "symbolic link")
        return _open_last(parts[-1], flags, mode, directory)
    finally:
        os.close(directory)


def _open_last(name: bytes, flags: int, mode: int, directory: int) -> int:
    try:
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)
    except NotADirectoryError:
        # O_DIRECTORY hides that the name is a link.
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "symbolic link") from None
        raise
    if flags & os.O_DIRECTORY:
        _require_no_link(descriptor, name, directory)
    return descriptor


def _require_no_link(descriptor: int, name: bytes, directory: int) -> None:
    """Refuse a directory that was found through a link: gVisor follows one when asked for a directory."""
    found, named = os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False)
    if (found.st_dev, found.st_ino) != (named.st_dev, named.st_ino):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "symbolic link")


def _join(before: list[bytes], content: bytes, after: list[bytes], mount: bytes) -> bytes | None:
    if content.startswith(b"/"):
        if content != mount and not content.startswith(mount + b"/"):
            return None
        before, content = [], content[len(mount) :]
    joined: list[bytes] = []
    for part in before + content.split(b"/") + after:
        if part == b"..":
            if not joined:
                return None
            joined.pop()
        elif part not in (b"", b"."):
            joined.append(part)
    return b"/".join(joined) or b"."


def _copy_entry(source: bytes, target: bytes) -> None:
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(target, 0o700)
        copy_tree(source, target)
        os.chmod(target, stat.S_IMODE(status.st_mode) & 0o777)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(source, target)
        os.chmod(target, stat.S_IMODE(status.st_mode) & 0o777)
    else:
        return
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _copy_file(source: bytes, target: bytes) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while True:
            data = os.read(reading, _COPY_CHUNK_BYTES)
            if not data:
                return
            while data:
                data = data[os.write(writing, data) :]
    finally:
        os.close(reading)
        os.close(writing)

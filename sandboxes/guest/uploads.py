"""Content too long for one frame: its parts collect in a nameless file on the workspace's own disk."""

from __future__ import annotations

import errno
import os

from sandboxes.guest import prepare

_CHUNK_BYTES = 1 << 20
# An overlay before Linux 6.1 and gVisor know no nameless files.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS})
_open: dict[bytes, int] = {}


def add(token: bytes, data: bytes) -> None:
    """Append a part; when that fails the whole upload is forgotten."""
    if token not in _open:
        _open[token] = _nameless_file()
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(_open[token], view) :]
    except OSError:
        drop(token)
        raise


def size(token: bytes) -> int:
    """Return how much has been uploaded."""
    return os.fstat(_open[token]).st_size


def move(token: bytes, target: int) -> None:
    """Move the uploaded content into an empty file, last piece first: it never takes the space twice."""
    source = _open[token]
    end = size(token)
    while end > 0:
        start = (end - 1) // _CHUNK_BYTES * _CHUNK_BYTES
        data = memoryview(os.pread(source, end - start, start))
        position = start
        while data:
            written = os.pwrite(target, data, position)
            position += written
            data = data[written:]
        os.ftruncate(source, start)
        end = start


def drop(token: bytes) -> None:
    """Forget an upload and free its space."""
    descriptor = _open.pop(token, None)
    if descriptor is not None:
        os.close(descriptor)


def _nameless_file() -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(prepare.STORE, os.O_TMPFILE | flags, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    name = prepare.STORE + "/.remit-%s.tmp" % os.urandom(8).hex()
    descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | flags, 0o600)
    os.unlink(name)
    return descriptor

"""Put a copy of the user's tree into an empty workspace, a batch of entries at a time."""

from __future__ import annotations

import os

from sandboxes.guest import paths, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def perform(root: int, entries: list[Any]) -> dict[str, Any]:
    """Make entries ``[path, kind, mode, time in ns, content]``; parents come before what they hold."""
    size = 0
    for path, kind, mode, nanoseconds, content in entries:
        _make(root, system.fs_bytes(path), kind, mode, nanoseconds, content)
        size += len(content)
    return {"k": "written", "created": True, "bytes": size, "directories": 0}


def _make(root: int, path: bytes, kind: str, mode: int, nanoseconds: int, content: bytes) -> None:
    head, _, name = path.rpartition(b"/")
    parent = paths.open_beneath(root, head or b".", os.O_PATH | os.O_DIRECTORY)
    try:
        if kind == "symlink":
            os.symlink(content, name, dir_fd=parent)
        elif kind == "directory":
            # Its own mode comes as "attributes" once it has been filled.
            os.mkdir(name, 0o700, dir_fd=parent)
        elif kind == "file":
            _append(parent, name, content)
        if kind == "attributes":
            os.chmod(name, mode, dir_fd=parent)
        os.utime(name, ns=(nanoseconds, nanoseconds), dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _append(parent: int, name: bytes, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)

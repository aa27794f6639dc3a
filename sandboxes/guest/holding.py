"""The program of a holder: a container in which no command runs, and which tells what a volume holds.

The volume is also mounted in the container where commands run. They may change it while it is looked at, so
every step is taken from an open directory and follows no link. Content is told by digest, because a write
through a shared mapping leaves no other trace on a tmpfs; only while no command can have run since the last
look may inode, size and time of change stand for it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
import stat

from sandboxes.guest import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEEPEST = 1000
PAGE_BYTES = 4 * 1024 * 1024
DIGEST_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 1 << 20
_ENTRY_BYTES = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


def main(_reading: int, _writing: int) -> None:
    """Answer until the host lets go of stdin or the time that it gave is over."""
    reader = frames.FrameReader()
    hello = _receive(reader, None)
    if hello is None:
        os._exit(0)
    settings = hello["settings"]
    holder = Holder(settings["mount"])
    _send({"n": hello["n"], "k": "ready", "strategy": "copy", "init": os.getpid(), "shell": "/bin/sh"})
    while True:
        request = _receive(reader, settings["lifetime_seconds"])
        if request is None:
            os._exit(0)
        _send({**holder.answer(request), "n": request["n"]})


class Holder:
    """What a holder knows of its volume."""

    def __init__(self, mount: str) -> None:
        self._root = os.open(mount.encode("utf-8", "surrogateescape"), _DIRECTORY)
        self._walk: Iterator[list[Any] | None] = iter(())
        self._known: dict[tuple[int, int, int], bytes] = {}
        self._seen: dict[tuple[int, int, int], bytes] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply to one request."""
        if request["o"] == "survey":
            return self._survey(request)
        if request["o"] == "part":
            return self._part(request)
        if request["o"] == "links":
            return self._make_links(request)
        raise frames.FrameError("unknown operation")

    def _survey(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["afresh"]:
            self._known = self._seen if request["at_rest"] else {}
            self._seen = {}
            self._walk = self._entries()
        entries: list[list[Any]] = []
        size = digested = 0
        for entry in self._walk:
            if entry is None:
                digested += _CHUNK_BYTES
            else:
                entries.append(entry)
                size += _ENTRY_BYTES + len(entry[1]) + len(entry[6])
            if size >= PAGE_BYTES or digested >= DIGEST_BYTES:
                return {"k": "survey", "entries": entries, "more": True}
        return {"k": "survey", "entries": entries, "more": False}

    def _part(self, request: dict[str, Any]) -> dict[str, Any]:
        directory = os.dup(self._root)
        try:
            for name in request["names"][:-1]:
                step = os.open(name, _DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = step
            file = os.open(request["names"][-1], _FILE, dir_fd=directory)
        except OSError:
            return {"k": "part", "data": b""}
        finally:
            os.close(directory)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return {"k": "part", "data": b""}
            return {"k": "part", "data": os.pread(file, request["max_bytes"], request["offset"])}
        finally:
            os.close(file)

    def _make_links(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make links, with the directories that they need, in a volume that is empty but for those."""
        for names, target, modified_ns in request["links"]:
            for depth in range(1, len(names)):
                try:
                    os.mkdir(b"/".join(names[:depth]), 0o700, dir_fd=self._root)
                except FileExistsError:
                    continue
            path = b"/".join(names)
            os.symlink(target, path, dir_fd=self._root)
            os.utime(path, ns=(modified_ns, modified_ns), dir_fd=self._root, follow_symlinks=False)
            os.chown(path, request["uid"], request["uid"], dir_fd=self._root, follow_symlinks=False)
        return {"k": "made"}

    def _entries(self) -> Iterator[list[Any] | None]:
        """Give every entry, parents first, and None for each stretch of content that was read.

        An entry is the number of its directory, its name, kind, mode, size, time, and digest or target;
        directories have numbers in the order in which they are given, the root has 0.
        """
        stack = [(0, os.dup(self._root), iter(sorted(os.listdir(self._root))))]
        count = 0
        try:
            while stack:
                number, directory, names = stack[-1]
                name = next(names, None)
                if name is None:
                    os.close(directory)
                    stack.pop()
                    continue
                raw = os.fsencode(name)
                child = -1
                for entry in self._entry(number, directory, raw, len(stack) < DEEPEST):
                    if isinstance(entry, int):
                        child = entry
                    else:
                        yield entry
                if child >= 0:
                    count += 1
                    stack.append((count, child, iter(sorted(os.listdir(child)))))
        finally:
            for _, directory, _ in stack:
                os.close(directory)

    def _entry(
        self, number: int, directory: int, name: bytes, deeper: bool
    ) -> Iterator[list[Any] | int | None]:
        """Give one entry; for a directory also what it was opened as. What is gone by now gives nothing."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            mode, size = stat.S_IMODE(status.st_mode), status.st_size
            if stat.S_ISDIR(status.st_mode) and deeper:
                child = os.open(name, _DIRECTORY, dir_fd=directory)
                yield [number, name, "directory", mode, 0, status.st_mtime_ns, b""]
                yield child
            elif stat.S_ISLNK(status.st_mode):
                target = os.readlink(name, dir_fd=directory)
                yield [number, name, "symlink", mode, 0, status.st_mtime_ns, target]
            elif stat.S_ISREG(status.st_mode):
                for digest in self._digest(directory, name):
                    yield [number, name, "file", mode, size, status.st_mtime_ns, digest] if digest else None
            else:
                yield [number, name, "other", mode, 0, status.st_mtime_ns, b""]
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _digest(self, directory: int, name: bytes) -> Iterator[bytes | None]:
        file = os.open(name, _FILE, dir_fd=directory)
        try:
            status = os.fstat(file)
            key = (status.st_ino, status.st_size, status.st_ctime_ns)
            digest = self._known.get(key)
            if digest is None:
                found = hashlib.sha256()
                while True:
                    data = os.read(file, _CHUNK_BYTES)
                    if not data:
                        break
                    found.update(data)
                    yield None
                digest = found.digest()
            self._seen[key] = digest
            yield digest
        finally:
            os.close(file)


def _receive(reader: frames.FrameReader, seconds: int | None) -> dict[str, Any] | None:
    while True:
        if seconds is not None and not select.select([0], [], [], seconds)[0]:
            return None
        count = os.readv(0, [reader.room()])
        if count == 0:
            return None
        payload = reader.filled(count)
        if payload is not None:
            return frames.decode_payload(payload)


def _send(reply: dict[str, Any]) -> None:
    view = memoryview(frames.encode_frame(reply))
    while view:
        view = view[os.write(1, view) :]

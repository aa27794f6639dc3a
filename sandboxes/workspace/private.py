"""File operations on a private tree with the answers that a guest gives: `FakeSandbox` works with it.

Links are never followed; a path that leads through one is answered as a guest answers it. The tree belongs to
one process, so nothing here defends against a race.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import secrets

from sandboxes.base import (
    DirectoryEntry,
    FileContent,
    FileProblem,
    FileProblemKind,
    FileRemoved,
    FileWritten,
    Listing,
)
from sandboxes.workspace.cursor import TreeCursor, open_file, set_mode
from sandboxes.workspace.layers import Entry, entry_of, write_all
from sandboxes.workspace.names import list_names, parts_of, to_bytes, to_text

_MAX_PATH_BYTES = 4096
_KINDS: dict[int, FileProblemKind] = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_directory",
    errno.EISDIR: "is_directory",
    errno.EEXIST: "exists",
    errno.ENOTEMPTY: "exists",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EROFS: "permission",
    errno.ENOSPC: "no_space",
    errno.EFBIG: "too_large",
    errno.ENAMETOOLONG: "name_too_long",
}


class _Stopped(Exception):
    """Carries the answer out of a walk that cannot go on."""

    def __init__(self, kind: FileProblemKind, detail: str, target: str | None = None) -> None:
        super().__init__(detail)
        self.kind: FileProblemKind = kind
        self.detail = detail
        self.target = target


class PrivateTree:
    """A directory that only this process uses, with the file methods of a sandbox."""

    def __init__(
        self,
        root_fd: int,
        *,
        mount: str,
        hidden: tuple[str, ...],
        read_only: tuple[str, ...],
        max_bytes: int,
    ) -> None:
        self._root_fd = root_fd
        self._mount = mount
        self._hidden = hidden
        self._read_only = (*read_only, *hidden)
        self._max_bytes = max_bytes
        self._bytes_at_start = self._total_bytes()

    def read(self, path: str, *, offset: int, max_bytes: int) -> FileContent | FileProblem:
        """Read part of a regular file."""
        try:
            with self._parent_of(path) as cursor:
                entry = self._existing(cursor, path)
                _require_file(entry)
                if _covers(self._hidden, path):
                    return FileContent(data=b"", size=0, mode=entry.mode, truncated=False)
                fd = open_file(cursor.fd, entry.name)
                try:
                    data = os.pread(fd, max_bytes, offset)
                finally:
                    os.close(fd)
                return FileContent(
                    data=data, size=entry.size, mode=entry.mode, truncated=offset + len(data) < entry.size
                )
        except (_Stopped, OSError) as problem:
            return _problem(path, problem)

    def write(
        self,
        path: str,
        data: bytes,
        *,
        mode: int | None,
        create_parents: bool,
        must_not_exist: bool,
        expected_sha256: str | None,
        modified_ns: int | None = None,
    ) -> FileWritten | FileProblem:
        """Put a file in place by a temporary file and a rename."""
        try:
            self._require_writable(path)
            self._require_space(len(data))
            made: list[str] = []
            with self._parent_of(path, made=made if create_parents else None) as cursor:
                entry = self._optional(cursor, path)
                _require_replaceable(
                    cursor, entry, must_not_exist=must_not_exist, expected_sha256=expected_sha256
                )
                kept = 0o644 if entry is None else entry.mode
                name = parts_of(path)[-1]
                _replace(cursor.fd, name, data, kept if mode is None else mode)
                if modified_ns is not None:
                    os.utime(name, ns=(modified_ns, modified_ns), dir_fd=cursor.fd)
            return FileWritten(created=entry is None, bytes_written=len(data), directories_created=len(made))
        except (_Stopped, OSError) as problem:
            return _problem(path, problem)

    def remove(self, path: str) -> FileRemoved | FileProblem:
        """Remove a file, a link or an empty directory."""
        try:
            self._require_writable(path)
            with self._parent_of(path) as cursor:
                entry = self._existing(cursor, path, link=True)
                if entry.kind == "directory":
                    os.rmdir(entry.name, dir_fd=cursor.fd)
                    return FileRemoved(path=path)
                os.unlink(entry.name, dir_fd=cursor.fd)
                return FileRemoved(path=path)
        except (_Stopped, OSError) as problem:
            return _problem(path, problem)

    def make_directory(self, path: str, *, mode: int) -> FileWritten | FileProblem:
        """Make a directory, or give an existing one a mode."""
        try:
            self._require_writable(path)
            with self._parent_of(path) as cursor:
                entry = self._optional(cursor, path)
                _require_directory_or_nothing(entry)
                if entry is None:
                    os.mkdir(parts_of(path)[-1], dir_fd=cursor.fd)
                set_mode(cursor.fd, parts_of(path)[-1], mode)
                return FileWritten(
                    created=entry is None, bytes_written=0, directories_created=int(entry is None)
                )
        except (_Stopped, OSError) as problem:
            return _problem(path, problem)

    def make_symlink(self, path: str, *, target: str) -> FileWritten | FileProblem:
        """Make a link where nothing is."""
        try:
            self._require_writable(path)
            with self._parent_of(path) as cursor:
                os.symlink(to_bytes(target), parts_of(path)[-1], dir_fd=cursor.fd)
                return FileWritten(created=True, bytes_written=0, directories_created=0)
        except (_Stopped, OSError) as problem:
            return _problem(path, problem)

    def list_entries(self, path: str, *, recursive: bool, max_entries: int) -> Listing | FileProblem:
        """List a directory in order of path."""
        try:
            with self._directory(path) as cursor:
                prefix = "" if path == "." else f"{path}/"
                entries: list[DirectoryEntry] = []
                for parts, entry in _entries(cursor, recursive=recursive):
                    name = prefix + to_text(b"/".join((*parts, entry.name)))
                    if not any(name.startswith(f"{hidden}/") for hidden in self._hidden):
                        entries.append(DirectoryEntry(path=name, kind=entry.kind, size=entry.size))
        except (_Stopped, OSError) as problem:
            return _problem(path, problem)
        entries.sort(key=lambda entry: entry.path)
        return Listing(entries=tuple(entries[:max_entries]), truncated=len(entries) > max_entries)

    def used_bytes(self) -> int:
        """Give by how much the tree has grown since the start."""
        return max(0, self._total_bytes() - self._bytes_at_start)

    def _total_bytes(self) -> int:
        with TreeCursor(self._root_fd) as cursor:
            return sum(entry.size for _, entry in _entries(cursor, recursive=True))

    def _require_writable(self, path: str) -> None:
        if path == ".":
            raise _Stopped("is_directory", "the workspace itself")
        if _covers(self._read_only, path):
            raise _Stopped("permission", "read-only here")

    def _require_space(self, size: int) -> None:
        if self.used_bytes() + size > self._max_bytes:
            raise _Stopped("no_space", "the workspace is full")

    def _parent_of(self, path: str, *, made: list[str] | None = None) -> TreeCursor:
        _require_path(path)
        cursor = TreeCursor(self._root_fd)
        try:
            for name in parts_of(path)[:-1]:
                if made is not None and entry_of(cursor.fd, name) is None:
                    os.mkdir(name, 0o755, dir_fd=cursor.fd)
                    made.append(to_text(name))
                self._descend(cursor, name, path)
        except BaseException:
            cursor.close()
            raise
        return cursor

    def _directory(self, path: str) -> TreeCursor:
        cursor = self._parent_of(path)
        try:
            if path != ".":
                self._descend(cursor, parts_of(path)[-1], path)
        except BaseException:
            cursor.close()
            raise
        return cursor

    def _descend(self, cursor: TreeCursor, name: bytes, path: str) -> None:
        entry = entry_of(cursor.fd, name)
        if entry is None:
            raise _Stopped("not_found", "no such file or directory")
        if entry.kind == "symlink":
            raise self._link(cursor, entry, path)
        if entry.kind != "directory":
            raise _Stopped("not_directory", f"{to_text(name)} is not a directory")
        cursor.enter(name)

    def _existing(self, cursor: TreeCursor, path: str, *, link: bool = False) -> Entry:
        entry = self._optional(cursor, path, link=link)
        if entry is None:
            raise _Stopped("not_found", "no such file or directory")
        return entry

    def _optional(self, cursor: TreeCursor, path: str, *, link: bool = False) -> Entry | None:
        if path == ".":
            raise _Stopped("is_directory", "the workspace itself")
        entry = entry_of(cursor.fd, parts_of(path)[-1])
        if entry is not None and entry.kind == "symlink" and not link:
            raise self._link(cursor, entry, path)
        return entry

    def _link(self, cursor: TreeCursor, entry: Entry, path: str) -> _Stopped:
        """Say where a link on the way leads, with what is left of the path, or that it leads out."""
        here = to_text(b"/".join(cursor.parts))
        rest = parts_of(path)[len(cursor.parts) + 1 :]
        text = posixpath.join(to_text(entry.target or b""), *(to_text(name) for name in rest))
        absolute = posixpath.normpath(posixpath.join(self._mount, here, text))
        if absolute != self._mount and not absolute.startswith(f"{self._mount}/"):
            return _Stopped("symlink", "a link that leads out of the workspace")
        target = posixpath.relpath(absolute, self._mount)
        return _Stopped("symlink", f"a link to {target}", target)


def _entries(cursor: TreeCursor, *, recursive: bool) -> list[tuple[tuple[bytes, ...], Entry]]:
    found: list[tuple[tuple[bytes, ...], Entry]] = []
    base = len(cursor.parts)
    pending = [list_names(cursor.fd)]
    while pending:
        if not pending[-1]:
            pending.pop()
            if pending:
                cursor.leave()
            continue
        entry = entry_of(cursor.fd, pending[-1].pop())
        if entry is None:
            continue
        found.append((cursor.parts[base:], entry))
        if recursive and entry.kind == "directory":
            cursor.enter(entry.name)
            pending.append(list_names(cursor.fd))
    return found


def _require_path(path: str) -> None:
    if not path or "\0" in path:
        raise _Stopped("invalid_path", "empty, or holds a NUL")
    if path.startswith("/") or ".." in path.split("/"):
        raise _Stopped("outside", "leads out of the workspace")
    if len(to_bytes(path)) > _MAX_PATH_BYTES:
        raise _Stopped("name_too_long", f"longer than {_MAX_PATH_BYTES} bytes")


def _require_file(entry: Entry) -> None:
    if entry.kind == "directory":
        raise _Stopped("is_directory", "a directory")
    if entry.kind != "file":
        raise _Stopped("not_regular", "not a regular file")


def _require_directory_or_nothing(entry: Entry | None) -> None:
    if entry is not None and entry.kind != "directory":
        raise _Stopped("exists", f"a {entry.kind} is there")


def _require_replaceable(
    cursor: TreeCursor, entry: Entry | None, *, must_not_exist: bool, expected_sha256: str | None
) -> None:
    if entry is None:
        if expected_sha256 is not None:
            raise _Stopped("changed", "the file is gone")
        return
    _require_file(entry)
    if must_not_exist:
        raise _Stopped("exists", "a file is there")
    if expected_sha256 is not None and _sha256(cursor.fd, entry.name) != expected_sha256:
        raise _Stopped("changed", "the file's content is another one")


def _sha256(directory_fd: int, name: bytes) -> str:
    with open(open_file(directory_fd, name), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(directory_fd: int, name: bytes, data: bytes, mode: int) -> None:
    temporary = b".remit-" + secrets.token_hex(8).encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory_fd)
    try:
        write_all(fd, data)
        os.fchmod(fd, mode & 0o777)
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=directory_fd)
        raise
    finally:
        os.close(fd)


def _covers(prefixes: tuple[str, ...], path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def _problem(path: str, problem: _Stopped | OSError) -> FileProblem:
    if isinstance(problem, _Stopped):
        return FileProblem(kind=problem.kind, path=path, detail=problem.detail, target=problem.target)
    kind = _KINDS.get(problem.errno or 0)
    if kind is None:
        raise problem
    return FileProblem(kind=kind, path=path, detail=problem.strerror or str(problem))

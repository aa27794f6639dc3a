"""File operations in the workspace: each returns the fields of its reply, none blocks or follows a link."""

from __future__ import annotations

import errno
import os
import stat

from sandboxes.guest import frames, paths, system, uploads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandboxes.guest.prepare import Workspace

_PROBLEM_OF_ERRNO = {
    errno.ENOENT: "not_found",
    errno.EISDIR: "is_directory",
    errno.ENOTDIR: "not_directory",
    errno.ENXIO: "not_regular",
    errno.EXDEV: "outside",
    errno.ELOOP: "symlink",
    errno.EEXIST: "exists",
    errno.ENOTEMPTY: "is_directory",
    errno.EFBIG: "too_large",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.ENAMETOOLONG: "name_too_long",
    errno.EINVAL: "invalid_path",
}
_NEW_FILE_MODE = 0o644
_READ_CHUNK_BYTES = 1 << 20


class Problem(Exception):
    """A reason that is not an errno."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def perform(workspace: Workspace, operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do one file operation and return its reply, or the problem that stopped it."""
    path = system.fs_bytes(request["path"])
    try:
        _check_form(path)
        return _OPERATIONS[operation](workspace, path, request)
    except Problem as problem:
        return _problem(problem.kind, str(problem), None)
    except OSError as error:
        return _explain(workspace, path, error)
    except (ValueError, OverflowError) as error:
        return _problem("invalid_path", str(error), None)


def _check_form(path: bytes) -> None:
    if b"\0" in path or not path:
        raise Problem("invalid_path", "path is empty or holds a NUL byte")
    if path.startswith(b"/") or b".." in path.split(b"/"):
        raise Problem("outside", "path leaves the workspace")


def _explain(workspace: Workspace, path: bytes, error: OSError) -> dict[str, Any]:
    kind = _PROBLEM_OF_ERRNO.get(error.errno or 0, "permission")
    if error.errno == errno.ELOOP:
        return _problem("symlink", "path goes through a symbolic link", _target(workspace, path))
    if kind == "permission" and _is_special(workspace.root, path):
        kind = "not_regular"
    return _problem(kind, os.strerror(error.errno or errno.EIO), None)


def _target(workspace: Workspace, path: bytes) -> str | None:
    try:
        target = paths.link_target(workspace.root, path, system.fs_bytes(workspace.mount))
    except OSError:
        return None
    return None if target is None else target.decode("utf-8", "surrogateescape")


def _is_special(root: int, path: bytes) -> bool:
    try:
        descriptor = paths.open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return False
    mode = os.fstat(descriptor).st_mode
    os.close(descriptor)
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def _problem(kind: str, detail: str, target: str | None) -> dict[str, Any]:
    return {"k": "problem", "problem": kind, "detail": detail, "target": target}


def _read(workspace: Workspace, path: bytes, request: dict[str, Any]) -> dict[str, Any]:
    descriptor = paths.open_beneath(workspace.root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        _require_regular(status.st_mode)
        wanted = min(request["max_bytes"], frames.MAX_BODY_BYTES)
        data = _pread(descriptor, request["offset"], min(wanted, max(0, status.st_size - request["offset"])))
    finally:
        os.close(descriptor)
    return {"k": "content", "data": data, "size": status.st_size, "mode": stat.S_IMODE(status.st_mode)}


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(mode):
        raise Problem("not_regular", "is no regular file")


def _pread(descriptor: int, offset: int, count: int) -> bytes:
    data = os.pread(descriptor, count, offset)
    if len(data) == count or not data:
        return data
    parts = [data]
    have = len(data)
    while have < count:
        data = os.pread(descriptor, min(_READ_CHUNK_BYTES, count - have), offset + have)
        if not data:
            break
        parts.append(data)
        have += len(data)
    return b"".join(parts)


def _write(workspace: Workspace, path: bytes, request: dict[str, Any]) -> dict[str, Any]:
    made: list[tuple[int, bytes]] = []
    parent = -1
    upload = request["upload"]
    size = len(request["data"]) if upload is None else uploads.size(upload)
    try:
        parent, name = _open_parent(workspace.root, path, made if request["create_parents"] else None)
        present = _present(parent, name)
        _check_replaceable(workspace, path, present, request)
        mode = _mode_for(present, request["mode"])
        _put(
            parent, name, request["data"], upload, mode, request.get("modified_ns"), request["must_not_exist"]
        )
    except BaseException:
        for directory, created in reversed(made):
            os.rmdir(created, dir_fd=directory)
        raise
    finally:
        for directory, _ in made:
            os.close(directory)
        if parent >= 0:
            os.close(parent)
        if upload is not None:
            uploads.drop(upload)
    return _written(present is None, size, len(made))


def _upload(_workspace: Workspace, _path: bytes, request: dict[str, Any]) -> dict[str, Any]:
    if request["more"]:
        uploads.add(request["upload"], request["data"])
    else:
        uploads.drop(request["upload"])
    return _written(False, len(request["data"]), 0)


def _written(created: bool, size: int, directories: int) -> dict[str, Any]:
    return {"k": "written", "created": created, "bytes": size, "directories": directories}


def _open_parent(root: int, path: bytes, made: list[tuple[int, bytes]] | None) -> tuple[int, bytes]:
    """Open the directory that holds ``path``; missing ones are made and noted, unless ``made`` is None."""
    head, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return paths.open_beneath(root, head or b".", flags), name
    except FileNotFoundError:
        if made is None:
            raise
    directory = paths.open_beneath(root, b".", flags)
    for part in head.split(b"/"):
        try:
            step = paths.open_beneath(directory, part, flags)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=directory)
            made.append((os.dup(directory), part))
            step = paths.open_beneath(directory, part, flags)
        finally:
            os.close(directory)
        directory = step
    return directory, name


def _present(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _check_replaceable(
    workspace: Workspace, path: bytes, present: os.stat_result | None, request: dict[str, Any]
) -> None:
    if present is None:
        if request["expected_sha256"] is not None:
            raise Problem("changed", "the file is not there any more")
        return
    if stat.S_ISLNK(present.st_mode):
        raise OSError(errno.ELOOP, "symbolic link")
    _require_regular(present.st_mode)
    if request["must_not_exist"]:
        raise FileExistsError(errno.EEXIST, "exists")
    if request["expected_sha256"] is not None:
        _require_content(workspace.root, path, request["expected_sha256"])


def _require_content(root: int, path: bytes, expected: str) -> None:
    from sandboxes.guest.output import new_sha256

    digest = new_sha256()
    descriptor = paths.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        while True:
            data = os.read(descriptor, _READ_CHUNK_BYTES)
            if not data:
                break
            digest.update(data)
    finally:
        os.close(descriptor)
    if digest.hexdigest() != expected:
        raise Problem("changed", "the file's content is another than expected")


def _mode_for(present: os.stat_result | None, wanted: int | None) -> int:
    if wanted is not None:
        return wanted & 0o777
    return _NEW_FILE_MODE if present is None else stat.S_IMODE(present.st_mode)


def _put(
    parent: int,
    name: bytes,
    data: bytes,
    upload: bytes | None,
    mode: int,
    modified_ns: int | None,
    exclusive: bool,
) -> None:
    temporary = b".remit-%s.tmp" % os.urandom(8).hex().encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)
    try:
        try:
            if upload is not None:
                uploads.move(upload, descriptor)
            _write_all(descriptor, data)
            os.fchmod(descriptor, mode)
            if modified_ns is not None:
                os.utime(descriptor, ns=(modified_ns, modified_ns))
        finally:
            os.close(descriptor)
        if exclusive:
            _rename_without_replacing(parent, temporary, name)
        else:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(temporary, dir_fd=parent)
        raise


def _rename_without_replacing(parent: int, temporary: bytes, name: bytes) -> None:
    try:
        system.rename_without_replacing(parent, temporary, name)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # Not known to gVisor; a second name cannot replace anything either.
        os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        os.unlink(temporary, dir_fd=parent)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _remove(workspace: Workspace, path: bytes, _: dict[str, Any]) -> dict[str, Any]:
    parent, name = _open_parent(workspace.root, path, None)
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    finally:
        os.close(parent)
    return {"k": "removed"}


def _make_directory(workspace: Workspace, path: bytes, request: dict[str, Any]) -> dict[str, Any]:
    created = True
    if path.strip(b"/") not in (b"", b"."):
        parent, name = _open_parent(workspace.root, path, None)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            created = False
        finally:
            os.close(parent)
    else:
        created = False
    descriptor = paths.open_beneath(workspace.root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fchmod(descriptor, request["mode"] & 0o777)
    finally:
        os.close(descriptor)
    return _written(created, 0, int(created))


def _make_symlink(workspace: Workspace, path: bytes, request: dict[str, Any]) -> dict[str, Any]:
    content = system.fs_bytes(request["content"])
    if not content or b"\0" in content:
        raise Problem("invalid_path", "a link cannot hold that")
    parent, name = _open_parent(workspace.root, path, None)
    try:
        os.symlink(content, name, dir_fd=parent)
    finally:
        os.close(parent)
    return _written(True, 0, 0)


def _list(workspace: Workspace, path: bytes, request: dict[str, Any]) -> dict[str, Any]:
    entries: list[list[Any]] = []
    most = request["max_entries"]
    prefix = b"" if path.strip(b"/") in (b"", b".") else path.rstrip(b"/") + b"/"
    truncated = _list_into(entries, workspace.root, path, prefix, request["recursive"], most)
    entries.sort()
    return {"k": "listing", "entries": entries, "truncated": truncated}


def _list_into(
    entries: list[list[Any]], root: int, path: bytes, prefix: bytes, recursive: bool, most: int
) -> bool:
    """Add what a directory holds, deep before wide; return whether something was left out."""
    descriptor = paths.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
    try:
        for name in paths.names(descriptor):
            status = _present(descriptor, name)
            if status is None:
                continue
            if len(entries) >= most:
                return True
            kind = _kind(status.st_mode)
            entries.append([(prefix + name).decode("utf-8", "surrogateescape"), kind, status.st_size])
            if recursive and kind == "directory" and _list_below(entries, root, prefix + name, most):
                return True
    finally:
        os.close(descriptor)
    return False


def _list_below(entries: list[list[Any]], root: int, path: bytes, most: int) -> bool:
    try:
        return _list_into(entries, root, path, path + b"/", True, most)
    except FileNotFoundError:
        return False
    except (OSError, RecursionError):
        # Unreadable, too deep, or swapped for a link in between: there is more than could be listed.
        return True


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


_OPERATIONS = {
    "read": _read,
    "write": _write,
    "upload": _upload,
    "remove": _remove,
    "mkdir": _make_directory,
    "symlink": _make_symlink,
    "list": _list,
}
OPERATIONS = frozenset(_OPERATIONS)

"""Put the changes of a run into the user's tree: all or none, and only where the tree is still the same.

First every changed path is compared with what the run saw there; a difference is a conflict, and then
nothing is written. A path that already is as the run left it is done, so an apply that broke off can be
repeated. Then deletions go deepest first, new things parents first, files by a temporary file and a rename,
and the modes of directories last.

The tree is walked by directory descriptors: a link in it is never followed. Set-user-id, set-group-id and
sticky bits never come out of a sandbox. When root applies, a new entry gets the owner of the directory that
it lands in, and a replaced one keeps its owner. A replaced file loses extended attributes and hard links.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from sandboxes.workspace.changes import Change, EntryState, state_of, text_sha256
from sandboxes.workspace.cursor import TreeCursor, set_mode, status_of
from sandboxes.workspace.errors import ApplyFailed, ChangesInvalid
from sandboxes.workspace.layers import entry_of, write_sparse
from sandboxes.workspace.manifest import Manifest
from sandboxes.workspace.names import escape_name, list_names, parts_of, to_bytes, to_text

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """A path where the tree is not what the run saw; ``detail`` is fit to be shown."""

    path: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ApplyReport:
    """What an apply did.

    Attributes:
        outcome: ``conflict`` means that nothing was written.
        written: Paths that were changed now.
        skipped: Paths of kind ``other``, which are never carried over.
    """

    outcome: Literal["applied", "already_applied", "conflict"]
    written: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @property
    def applied(self) -> bool:
        """Whether the tree now is as the run left it."""
        return self.outcome != "conflict"


def apply_changes(manifest: Manifest, tree: Path) -> ApplyReport:
    """Write the changes into a tree, or find out why not.

    Raises:
        ApplyFailed: Writing broke off; what was written stays, and the same apply can be repeated.
        ChangesInvalid: Content is missing or damaged.
    """
    skipped = tuple(change.path for change in manifest.changes if not _is_carried(change))
    carried = sorted(
        (change for change in manifest.changes if _is_carried(change)),
        key=lambda change: parts_of(change.path),
    )
    with TreeCursor.at(tree, unlock=0o500) as cursor:
        survey = _survey(cursor, carried)
    if survey.conflicts:
        return ApplyReport(outcome="conflict", skipped=skipped, conflicts=survey.conflicts)
    if carried and not survey.pending:
        return ApplyReport(outcome="already_applied", skipped=skipped)
    _write(manifest, tree, survey.pending)
    written = tuple(sorted(change.path for change in survey.pending))
    return ApplyReport(outcome="applied", written=written, skipped=skipped)


class _Survey(NamedTuple):
    pending: tuple[Change, ...]
    conflicts: tuple[Conflict, ...]


def _is_carried(change: Change) -> bool:
    return change.change == "deleted" or change.kind != "other"


def _survey(cursor: TreeCursor, changes: Sequence[Change]) -> _Survey:
    pending: list[Change] = []
    conflicts: list[Conflict] = []
    known = {change.path: change for change in changes}
    for change in changes:
        try:
            now = _state_at(cursor, change)
            detail = _objection(cursor, change, now, known)
        except OSError as error:
            conflicts.append(Conflict(path=change.path, detail=f"cannot be looked at: {error.strerror}"))
            continue
        if detail is not None:
            conflicts.append(Conflict(path=change.path, detail=detail))
        elif not _is_done(change, now):
            pending.append(change)
    return _Survey(tuple(pending), tuple(conflicts))


def _state_at(cursor: TreeCursor, change: Change) -> EntryState | None:
    *parents, name = parts_of(change.path)
    try:
        cursor.move_to(parents)
    except (FileNotFoundError, NotADirectoryError):
        return None
    entry = entry_of(cursor.fd, name)
    if entry is None:
        return None
    # A run can have left a file that its owner may not read: only there a mode is lifted for a look.
    is_shut = change.mode is not None and not change.mode & 0o400
    try:
        return state_of(cursor.fd, entry, unlock=is_shut)
    except PermissionError:
        return EntryState(entry.kind, entry.mode, entry.size, None, None)


def _objection(
    cursor: TreeCursor, change: Change, now: EntryState | None, known: dict[str, Change]
) -> str | None:
    if _is_done(change, now):
        return None
    if not _is_as_before(change, now):
        return "the run saw something else here" if change.before_kind else "something is here by now"
    if change.change != "deleted" and not _has_parent(cursor, change, known):
        return "the directory that it was in is gone"
    if change.before_kind == "directory" and change.kind != "directory" and now is not None:
        return _unseen_child(cursor, change, known)
    if change.before_kind == "directory" and change.change == "deleted" and now is not None:
        return _unseen_child(cursor, change, known)
    return None


def _is_done(change: Change, now: EntryState | None) -> bool:
    if change.change == "deleted" or now is None:
        return change.change == "deleted" and now is None
    if now.kind != change.kind:
        return False
    if change.kind == "symlink":
        return now.digest == text_sha256(to_bytes(change.target or ""))
    return now.mode == change.mode and (change.kind == "directory" or now.digest == change.sha256)


def _is_as_before(change: Change, now: EntryState | None) -> bool:
    if now is None:
        # A type change that broke off between removing the old and making the new.
        return change.before_kind is None or (
            change.change == "modified" and change.before_kind != change.kind
        )
    if change.kind == "directory" == now.kind and change.before_kind != "directory":
        return change.change != "deleted"
    if now.kind != change.before_kind:
        return False
    return now.digest == change.before_sha256 and now.mode == change.before_mode


def _has_parent(cursor: TreeCursor, change: Change, known: dict[str, Change]) -> bool:
    parent = change.path.rpartition("/")[0]
    if not parent:
        return True
    made = known.get(parent)
    if made is not None:
        return made.change != "deleted" and made.kind == "directory"
    return cursor.parts == parts_of(parent)


def _unseen_child(cursor: TreeCursor, change: Change, known: dict[str, Change]) -> str | None:
    cursor.enter(parts_of(change.path)[-1])
    try:
        names = list_names(cursor.fd)
    finally:
        cursor.leave()
    for name in names:
        child = known.get(f"{change.path}/{to_text(name)}")
        if child is None or child.change != "deleted":
            return f"it holds {escape_name(to_text(name))}, which the run did not see"
    return None


def _write(manifest: Manifest, tree: Path, pending: Sequence[Change]) -> None:
    done = 0
    try:
        with TreeCursor.at(tree, unlock=0o700) as cursor:
            for change in reversed(pending):
                if change.change == "deleted" or _changes_to_or_from_directory(change):
                    _remove(cursor, change)
            for change in pending:
                if change.change != "deleted":
                    _make(cursor, manifest, change)
                done += 1
            for change in reversed(pending):
                if change.change != "deleted" and change.kind == "directory":
                    _finish_directory(cursor, change)
    except OSError as error:
        raise ApplyFailed(
            f"{tree}: writing broke off after {done} of {len(pending)} changes: {error}",
            hint="remedy the cause and apply again: what is done already is recognised",
        ) from error


def _changes_to_or_from_directory(change: Change) -> bool:
    return change.before_kind is not None and (change.kind == "directory") != (
        change.before_kind == "directory"
    )


def _remove(cursor: TreeCursor, change: Change) -> None:
    *parents, name = parts_of(change.path)
    cursor.move_to(parents)
    status = status_of(cursor.fd, name)
    if status is None:
        return
    is_directory = stat.S_ISDIR(status.st_mode)
    if change.change != "deleted" and is_directory == (change.kind == "directory"):
        # Removed and made anew by an apply that broke off.
        return
    if is_directory:
        os.rmdir(name, dir_fd=cursor.fd)
        return
    os.unlink(name, dir_fd=cursor.fd)


def _make(cursor: TreeCursor, manifest: Manifest, change: Change) -> None:
    *parents, name = parts_of(change.path)
    cursor.move_to(parents)
    if change.kind == "directory":
        _make_directory(cursor.fd, name)
        return
    now = status_of(cursor.fd, name)
    owner = _owner(cursor.fd, now)
    if change.kind == "symlink":
        with _replacement(cursor.fd, name) as temporary:
            os.symlink(to_bytes(change.target or ""), temporary, dir_fd=cursor.fd)
            _give(cursor.fd, temporary, owner)
        return
    if now is not None and change.sha256 == change.before_sha256 and change.before_kind == "file":
        set_mode(cursor.fd, name, change.mode or 0)
        return
    with _replacement(cursor.fd, name) as temporary:
        _write_file(cursor.fd, temporary, manifest, change, owner)


def _make_directory(directory_fd: int, name: bytes) -> None:
    if status_of(directory_fd, name) is None:
        os.mkdir(name, 0o700, dir_fd=directory_fd)
        _give(directory_fd, name, _owner(directory_fd, None))


def _finish_directory(cursor: TreeCursor, change: Change) -> None:
    *parents, name = parts_of(change.path)
    cursor.move_to(parents)
    status = status_of(cursor.fd, name)
    special = 0 if status is None else status.st_mode & 0o7000
    set_mode(cursor.fd, name, special | (change.mode or 0))


def _write_file(
    directory_fd: int, name: bytes, manifest: Manifest, change: Change, owner: tuple[int, int] | None
) -> None:
    blob = manifest.blob_path(change.sha256 or "")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory_fd)
    try:
        digest = hashlib.sha256()
        with blob.open("rb", buffering=0) as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                write_sparse(fd, chunk)
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
        if digest.hexdigest() != change.sha256:
            raise ChangesInvalid(f"{blob}: the content is not what its name says")
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, change.mode or 0)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _replacement(directory_fd: int, name: bytes) -> Iterator[bytes]:
    """Give a temporary name that takes the real one's place when all went well."""
    temporary = b".remit-apply-" + secrets.token_hex(8).encode()
    try:
        yield temporary
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory_fd)
        raise


def _owner(directory_fd: int, replaced: os.stat_result | None) -> tuple[int, int] | None:
    """Say whom a new entry is to belong to; None when only root could choose."""
    if os.geteuid() != 0:
        return None
    status = os.fstat(directory_fd) if replaced is None else replaced
    return status.st_uid, status.st_gid


def _give(directory_fd: int, name: bytes, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.chown(name, *owner, dir_fd=directory_fd, follow_symlinks=False)

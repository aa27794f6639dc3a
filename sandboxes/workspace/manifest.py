"""The changes of a run, taken out of its layer and kept: a manifest and the files' content by digest.

A directory holds ``manifest.json`` and ``blobs/<sha256>``. The manifest is written last and by a rename, so
what can be loaded is complete. Its format:

```json
{"format": "remit-changes/1", "strategy": "overlay", "lower": "/home/me/tree", "changes": [
  {"path": "a.py", "change": "modified", "kind": "file", "mode": 420, "size": 6, "sha256": "…",
   "target": null, "before_kind": "file", "before_mode": 420, "before_sha256": "…"}]}
```

A path, target or directory that is not UTF-8 is written as ``{"base64": "…"}`` instead of a string, so that
every JSON reader gives back exactly its bytes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandboxes.base import Layer, WorkspaceStrategy
from sandboxes.workspace.changes import Change, LayerBounds, read_changes
from sandboxes.workspace.cursor import TreeCursor, open_file
from sandboxes.workspace.errors import ChangesInvalid, LayerUnreadable
from sandboxes.workspace.layers import EntryKind, write_all, write_sparse
from sandboxes.workspace.names import escape_name, parts_of, to_bytes, to_text
from sandboxes.workspace.restore import Content

FORMAT: Literal["remit-changes/1"] = "remit-changes/1"
MANIFEST_NAME = "manifest.json"
BLOBS_NAME = "blobs"
_MAX_MANIFEST_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The changes of one run, with their content in ``directory``.

    Attributes:
        changes: In order of path.
        lower: The tree that they were made on, as its backend knew it.
        digest: ``sha256:`` and the hex digest of the manifest file.
    """

    directory: Path
    lower: Path
    strategy: WorkspaceStrategy
    changes: tuple[Change, ...]
    digest: str

    def blob_path(self, sha256: str) -> Path:
        """Say where the content with a digest is kept."""
        return self.directory / BLOBS_NAME / sha256

    def read_blob(self, sha256: str) -> bytes:
        """Read content by its digest.

        Raises:
            ChangesInvalid: It is missing or is not what its name says.
        """
        try:
            data = self.blob_path(sha256).read_bytes()
        except OSError as error:
            raise ChangesInvalid(
                f"{self.directory}: content {sha256} cannot be read: {error.strerror}"
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ChangesInvalid(f"{self.directory}: content {sha256} is not what its name says")
        return data

    def content(self, change: Change) -> Content:
        """Read the content of a changed file; when it was modified is not kept.

        Raises:
            ChangesInvalid: It is missing or is not what its name says.
        """
        return Content(self.read_blob(change.sha256 or ""), None)

    def digests(self) -> dict[str, str | None]:
        """Map each changed path, escaped as `escape_name` does, to what is there now.

        Files give ``sha256:…``, links ``symlink:…`` over their target, directories ``directory``, what cannot
        be carried over ``other``, and deletions None.
        """
        return {escape_name(change.path): _digest_text(change) for change in self.changes}


def export_changes(layer: Layer, into: Path, *, bounds: LayerBounds | None = None) -> Manifest:
    """Take the changes out of a layer whose sandbox was closed; an older export in the place is replaced.

    Raises:
        LayerUnreadable: The layer cannot be believed, or moved meanwhile.
    """
    changes = read_changes(layer, bounds=bounds)
    (into / BLOBS_NAME).mkdir(mode=0o700, parents=True, exist_ok=True)
    _export_blobs(layer, changes, into / BLOBS_NAME)
    document = _Document(
        format=FORMAT,
        strategy=layer.strategy,
        lower=_to_name(os.fspath(layer.lower)),
        changes=tuple(_to_record(change) for change in changes),
    )
    text = json.dumps(document.model_dump(mode="json"), ensure_ascii=False, indent=1).encode()
    _put(into / MANIFEST_NAME, text)
    _prune(into / BLOBS_NAME, {change.sha256 for change in changes})
    return Manifest(
        directory=into, lower=layer.lower, strategy=layer.strategy, changes=changes, digest=_sha256_text(text)
    )


def load_manifest(path: Path) -> Manifest:
    """Load exported changes from their directory and check every digest.

    Raises:
        ChangesInvalid: They are missing, damaged, or hold a path that no tree can have.
    """
    text = _read_manifest(path / MANIFEST_NAME)
    try:
        document = _Document.model_validate_json(text)
        changes = tuple(_to_change(record) for record in document.changes)
        lower = Path(_from_name(document.lower))
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ChangesInvalid(f"{path / MANIFEST_NAME}: {reason}") from error
    _check_order(path, changes)
    manifest = Manifest(
        directory=path, lower=lower, strategy=document.strategy, changes=changes, digest=_sha256_text(text)
    )
    for change in changes:
        if change.sha256 is not None:
            _check_blob(manifest, change.sha256, change.size)
    return manifest


def discard(path: Path) -> bool:
    """Remove exported changes for good; False when there were none."""
    if not path.is_dir() or path.is_symlink():
        return False
    # The manifest goes first: half of a discard must not look like changes.
    (path / MANIFEST_NAME).unlink(missing_ok=True)
    shutil.rmtree(path)
    return True


class _Base64Name(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    base64: str


_Name = str | _Base64Name


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: _Name
    change: Literal["added", "modified", "deleted"]
    kind: EntryKind
    mode: int | None = Field(ge=0, le=0o777)
    size: int | None = Field(ge=0)
    sha256: str | None = Field(pattern="^[0-9a-f]{64}$")
    target: _Name | None
    before_kind: EntryKind | None
    before_mode: int | None = Field(ge=0, le=0o777)
    before_sha256: str | None = Field(pattern="^[0-9a-f]{64}$")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["remit-changes/1"]
    strategy: WorkspaceStrategy
    lower: _Name
    changes: tuple[_Record, ...]


def _to_name(text: str) -> _Name:
    raw = to_bytes(text)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return _Base64Name(base64=base64.b64encode(raw).decode("ascii"))


def _from_name(name: _Name) -> str:
    return name if isinstance(name, str) else to_text(base64.b64decode(name.base64, validate=True))


def _to_record(change: Change) -> _Record:
    return _Record(
        path=_to_name(change.path),
        change=change.change,
        kind=change.kind,
        mode=change.mode,
        size=change.size,
        sha256=change.sha256,
        target=None if change.target is None else _to_name(change.target),
        before_kind=change.before_kind,
        before_mode=change.before_mode,
        before_sha256=change.before_sha256,
    )


def _to_change(record: _Record) -> Change:
    change = Change(
        path=_from_name(record.path),
        change=record.change,
        kind=record.kind,
        mode=record.mode,
        size=record.size,
        sha256=record.sha256,
        target=None if record.target is None else _from_name(record.target),
        before_kind=record.before_kind,
        before_mode=record.before_mode,
        before_sha256=record.before_sha256,
    )
    _require_path(change.path)
    _require_whole(change)
    return change


def _require_path(path: str) -> None:
    parts = parts_of(path)
    if path == "." or any(not part or part in {b".", b".."} or b"\0" in part for part in parts):
        raise ValueError(f"{escape_name(path)!r} is not a path of a workspace")


def _require_whole(change: Change) -> None:
    """Refuse a record that lacks what its kind needs or has what it cannot have."""
    there = change.change != "deleted"
    wanted = {
        "mode": there and change.kind in {"file", "directory"},
        "size": there and change.kind == "file",
        "sha256": there and change.kind == "file",
        "target": there and change.kind == "symlink",
        "before_kind": change.change != "added",
    }
    for name, needed in wanted.items():
        if (getattr(change, name) is not None) != needed:
            raise ValueError(f"{escape_name(change.path)}: {name} does not fit {change.change} {change.kind}")


def _check_order(path: Path, changes: Sequence[Change]) -> None:
    paths = [change.path for change in changes]
    if paths != sorted(set(paths)):
        raise ChangesInvalid(f"{path / MANIFEST_NAME}: paths are not in order, or one is there twice")


def _read_manifest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise ChangesInvalid(f"{path}: there are no exported changes here") from error
    except OSError as error:
        raise ChangesInvalid(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > _MAX_MANIFEST_BYTES:
        raise ChangesInvalid(f"{path}: more than {_MAX_MANIFEST_BYTES} bytes")
    return text


def _check_blob(manifest: Manifest, sha256: str, size: int | None) -> None:
    path = manifest.blob_path(sha256)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            length = file.tell()
    except OSError as error:
        raise ChangesInvalid(f"{path}: cannot be read: {error.strerror}") from error
    if found != sha256 or length != size:
        raise ChangesInvalid(f"{path}: the content is not what its name says")


def _export_blobs(layer: Layer, changes: Sequence[Change], blobs: Path) -> None:
    try:
        with TreeCursor(layer.upper_fd, unlock=0o500) as cursor:
            for change in sorted(changes, key=lambda change: parts_of(change.path)):
                if change.sha256 is not None:
                    *parents, name = parts_of(change.path)
                    cursor.move_to(parents)
                    _export_blob(cursor.fd, name, blobs / change.sha256)
    except OSError as error:
        raise LayerUnreadable(f"the layer over {layer.lower} cannot be exported: {error}") from error


def _export_blob(directory_fd: int, name: bytes, blob: Path) -> None:
    if blob.exists():
        return
    with (
        _temporary(blob) as target,
        open(open_file(directory_fd, name, unlock=True), "rb", buffering=0) as source,
    ):
        digest = hashlib.sha256()
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            write_sparse(target, chunk)
        os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))
        if digest.hexdigest() != blob.name:
            raise LayerUnreadable(f"{name!r} changed while it was exported")


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[int]:
    """Give a new file that takes its place only when all went well."""
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield fd
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _put(path: Path, data: bytes) -> None:
    with _temporary(path) as fd:
        write_all(fd, data)


def _prune(blobs: Path, wanted: set[str | None]) -> None:
    for blob in blobs.iterdir():
        if blob.name not in wanted:
            blob.unlink()


def _digest_text(change: Change) -> str | None:
    if change.change == "deleted":
        return None
    if change.sha256 is not None:
        return f"sha256:{change.sha256}"
    if change.target is not None:
        return f"symlink:{hashlib.sha256(to_bytes(change.target)).hexdigest()}"
    return change.kind


def _sha256_text(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"

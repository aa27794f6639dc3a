"""Put the changes of a run into a fresh sandbox over the same tree: for checks and for a run that goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from anyio import create_task_group, to_thread

from sandboxes.base import FileProblem, Sandbox
from sandboxes.errors import SandboxError
from sandboxes.workspace.changes import Change
from sandboxes.workspace.errors import RestoreFailed
from sandboxes.workspace.names import escape_name, parts_of

_SHOWN_CHARACTERS = 200
_BATCH_FILES = 64
_BATCH_BYTES = 8 * 1024 * 1024


class Content(NamedTuple):
    """A file's bytes, and when it was modified if that is known."""

    data: bytes
    modified_ns: int | None


class KeptChanges(Protocol):
    """Changes with their content: exported ones, or those of a layer whose sandbox was closed."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every change, in order of path."""
        ...

    def content(self, change: Change) -> Content:
        """Read the content of a changed file.

        Raises:
            WorkspaceError: It is missing or is not what the change says.
        """
        ...


async def restore_changes(kept: KeptChanges, sandbox: Sandbox) -> None:
    """Make a sandbox's workspace what the run left behind. Kind ``other`` is left out.

    Raises:
        RestoreFailed: The sandbox refused one of the changes.
        ChangesInvalid: Content is missing or damaged.
    """
    changes = sorted(kept.changes, key=lambda change: parts_of(change.path))
    for change in reversed(changes):
        if _must_go(change):
            _expect(change, await sandbox.remove(change.path), tolerate_missing=True)
    there = [change for change in changes if change.change != "deleted"]
    for change in there:
        await _make(sandbox, change)
    for batch in _batches([change for change in there if change.kind == "file"]):
        contents = await to_thread.run_sync(_contents, kept, batch)
        await _put_at_once(sandbox, batch, contents)
    for change in reversed(changes):
        if change.change != "deleted" and change.kind == "directory":
            _expect(change, await sandbox.make_directory(change.path, mode=change.mode or 0))


def _must_go(change: Change) -> bool:
    """Whether what the tree has here must be removed before the change can be made."""
    if change.change == "deleted":
        return True
    if change.before_kind is None or change.kind == "other":
        return False
    return change.kind == "symlink" or change.kind != change.before_kind


async def _make(sandbox: Sandbox, change: Change) -> None:
    if change.kind == "directory":
        _expect(change, await sandbox.make_directory(change.path, mode=0o700 | (change.mode or 0)))
    elif change.kind == "symlink":
        _expect(change, await sandbox.make_symlink(change.path, target=change.target or ""))


def _batches(files: Sequence[Change]) -> Iterator[list[Change]]:
    """Part files so that a batch is worth a thread and does not fill the memory."""
    batch: list[Change] = []
    for change in files:
        batch.append(change)
        if len(batch) >= _BATCH_FILES or sum(file.size or 0 for file in batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _contents(kept: KeptChanges, files: Sequence[Change]) -> list[Content]:
    return [kept.content(change) for change in files]


async def _put_at_once(sandbox: Sandbox, files: Sequence[Change], contents: Sequence[Content]) -> None:
    """Write files, all requests under way together, which halves the time; raise the first failure."""
    failures: list[SandboxError] = []

    async def put(change: Change, content: Content) -> None:
        try:
            written = await sandbox.write_file(
                change.path,
                content.data,
                mode=change.mode,
                create_parents=False,
                modified_ns=content.modified_ns,
            )
            _expect(change, written)
        except SandboxError as error:
            failures.append(error)
            group.cancel_scope.cancel()

    async with create_task_group() as group:
        for change, content in zip(files, contents, strict=True):
            group.start_soon(put, change, content)
    if failures:
        raise failures[0]


def _expect(change: Change, answer: object, *, tolerate_missing: bool = False) -> None:
    if not isinstance(answer, FileProblem) or (tolerate_missing and answer.kind == "not_found"):
        return
    name = escape_name(change.path)
    shown = name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"
    detail = f"{shown} cannot be restored: {answer.kind}: {answer.detail}"
    raise RestoreFailed(detail, kind=answer.kind)

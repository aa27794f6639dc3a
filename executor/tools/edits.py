"""Edits worked out in full before they are made, and undone together when one of them fails."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from budgets.reasons import Reason
from executor.tools.base import Bench, Performed, failed, refused, relative, shown
from executor.tools.files import MAX_FILE_BYTES
from executor.tools.patch_v4a import AddFile, DeleteFile, UpdateFile, V4aOperation, apply_hunks
from executor.tools.replace import ReplaceText, replace_text
from sandboxes.base import FileContent, FileProblem, FileRemoved, FileWritten

Operation = V4aOperation | ReplaceText


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """One file before and after; None where there is none."""

    path: str
    before: bytes | None
    after: bytes | None
    mode: int | None

    @property
    def kind(self) -> Literal["created", "modified", "deleted"]:
        """Name what happens to the file."""
        if self.before is None:
            return "created"
        return "deleted" if self.after is None else "modified"

    @property
    def written_bytes(self) -> int:
        """Count what has to be written for it."""
        return 0 if self.after is None else len(self.after)


async def plan(bench: Bench, operations: Iterable[Operation]) -> tuple[Edit, ...] | Performed:
    """Read every file concerned and work out what it becomes. Writes nothing."""
    drafts: dict[str, Edit] = {}
    for operation in operations:
        problem = await _Draft(bench, drafts).add(operation)
        if problem is not None:
            return problem
    # A file that one operation made and another one took away again is no edit at all.
    return tuple(edit for edit in drafts.values() if edit.before is not None or edit.after is not None)


async def carry_out(bench: Bench, edits: tuple[Edit, ...]) -> Performed | None:
    """Make the edits in order; when one fails, undo those before it and tell the failure."""
    made: list[tuple[Edit, int]] = []
    for edit in sorted(edits, key=lambda edit: edit.kind == "deleted"):
        done = await _make(bench, edit)
        if isinstance(done, FileProblem):
            left = await _undo(bench, made)
            performed = refused(done)
            return (
                performed
                if not left
                else failed("file.changed", f"not put back: {', '.join(map(shown, left))}")
            )
        made.append((edit, done.directories_created if isinstance(done, FileWritten) else 0))
    return None


def difference(edit: Edit) -> str:
    """Show one edit as a unified diff."""
    before = _lines(edit.before)
    after = _lines(edit.after)
    if before is None or after is None:
        return f"Binary file {shown(edit.path)} {edit.kind}\n"
    old = "/dev/null" if edit.before is None else f"a/{shown(edit.path)}"
    new = "/dev/null" if edit.after is None else f"b/{shown(edit.path)}"
    return "".join(_closed(line) for line in difflib.unified_diff(before, after, old, new))


class _Draft:
    """Adds one operation to what the earlier ones made of the files."""

    def __init__(self, bench: Bench, drafts: dict[str, Edit]) -> None:
        self._bench = bench
        self._drafts = drafts

    async def add(self, operation: Operation) -> Performed | None:
        if isinstance(operation, AddFile):
            return await self._created(relative(self._bench, operation.path), _encoded(operation.content))
        path = relative(self._bench, operation.path)
        edit = await self._present(path)
        if isinstance(edit, Performed):
            return edit
        if isinstance(operation, DeleteFile):
            self._drafts[path] = _with(edit, None)
            return None
        text = (edit.after or b"").decode("utf-8", "surrogateescape")
        if isinstance(operation, UpdateFile):
            return await self._updated(edit, operation, apply_hunks(shown(path), text, operation.hunks))
        return self._changed(edit, replace_text(operation, text))

    async def _present(self, path: str) -> Edit | Performed:
        known = self._drafts.get(path)
        if known is None:
            found = await self._bench.sandbox.read_file(path, max_bytes=MAX_FILE_BYTES)
            if isinstance(found, FileProblem):
                return refused(found)
            return _editable(path, found)
        if known.after is None:
            return failed("file.not_found", f"{shown(path)}: deleted by the same patch")
        return known

    async def _created(self, path: str, content: bytes, mode: int | None = None) -> Performed | None:
        known = self._drafts.get(path)
        if known is not None and known.after is None:
            self._drafts[path] = _with(known, content)
            return None
        if known is None:
            found = await self._bench.sandbox.read_file(path, max_bytes=0)
            if isinstance(found, FileProblem) and found.kind == "not_found":
                self._drafts[path] = Edit(path=path, before=None, after=content, mode=mode)
                return None
            if isinstance(found, FileProblem):
                return refused(found)
        return failed("file.exists", f"{shown(path)}: is already there")

    async def _updated(self, edit: Edit, operation: UpdateFile, text: str | Reason) -> Performed | None:
        if isinstance(text, Reason):
            return Performed(status="error", reasons=(text,))
        target = None if operation.move_to is None else relative(self._bench, operation.move_to)
        if target is None or target == edit.path:
            return self._changed(edit, text)
        self._drafts[edit.path] = _with(edit, None)
        return await self._created(target, _encoded(text), edit.mode)

    def _changed(self, edit: Edit, text: str | Reason) -> Performed | None:
        if isinstance(text, Reason):
            return Performed(status="error", reasons=(text,))
        self._drafts[edit.path] = _with(edit, _encoded(text))
        return None


def _editable(path: str, found: FileContent) -> Edit | Performed:
    if found.truncated:
        return failed("file.too_large", f"{shown(path)}: {found.size} bytes, more than {MAX_FILE_BYTES}")
    if b"\0" in found.data:
        return failed("file.invalid_text", f"{shown(path)}: not a text file")
    return Edit(path=path, before=found.data, after=found.data, mode=found.mode & 0o7777)


def _with(edit: Edit, after: bytes | None) -> Edit:
    return Edit(path=edit.path, before=edit.before, after=after, mode=edit.mode)


async def _make(bench: Bench, edit: Edit) -> FileWritten | FileRemoved | FileProblem:
    if edit.after is None:
        return await _remove_unchanged(bench, edit)
    if edit.before is None:
        return await bench.sandbox.write_file(edit.path, edit.after, mode=edit.mode, must_not_exist=True)
    return await bench.sandbox.write_file(edit.path, edit.after, expected_sha256=_sha256(edit.before))


async def _remove_unchanged(bench: Bench, edit: Edit) -> FileRemoved | FileProblem:
    found = await bench.sandbox.read_file(edit.path, max_bytes=MAX_FILE_BYTES)
    if isinstance(found, FileProblem):
        return found
    if found.data != edit.before:
        return FileProblem(kind="changed", path=edit.path, detail="changed while the patch was made")
    return await bench.sandbox.remove(edit.path)


async def _undo(bench: Bench, made: list[tuple[Edit, int]]) -> list[str]:
    left: list[str] = []
    for edit, directories in reversed(made):
        if edit.before is None:
            undone = await _take_away(bench, edit.path, directories)
        else:
            undone = not isinstance(
                await bench.sandbox.write_file(edit.path, edit.before, mode=edit.mode), FileProblem
            )
        if not undone:
            left.append(edit.path)
    return left


async def _take_away(bench: Bench, path: str, directories: int) -> bool:
    removed = await bench.sandbox.remove(path)
    parent = path
    for _ in range(directories):
        parent = parent.rpartition("/")[0]
        await bench.sandbox.remove(parent)
    return isinstance(removed, FileRemoved)


def _lines(data: bytes | None) -> list[str] | None:
    if data is None:
        return []
    if b"\0" in data:
        return None
    return data.decode("utf-8", "surrogateescape").splitlines(keepends=True)


def _closed(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

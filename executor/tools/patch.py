"""patch: edits of one or many files, all of them or none.

Everything is read and worked out before the first byte is written; each write names the digest of what it
replaces, so a file that changed in between stops the patch; what was already written is then put back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from budgets.call import Effects, JsonValue, PathUse
from budgets.reasons import Reason
from executor.tools.arguments import Argument, Arguments
from executor.tools.base import Action, Bench, Performed, Tool
from executor.tools.edits import Edit, Operation, carry_out, difference, plan
from executor.tools.patch_v4a import AddFile, DeleteFile, UpdateFile, parse_patch
from executor.tools.replace import ReplaceText


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchFiles:
    """Edits that are made together."""

    operations: tuple[Operation, ...]

    def effects(self) -> Effects:
        """Name every path that any of the edits touches."""
        paths = tuple(use for operation in self.operations for use in _uses(operation))
        return Effects(
            paths=paths, written_bytes=sum(_added_bytes(operation) for operation in self.operations)
        )

    async def perform(self, bench: Bench) -> Performed:
        """Work out all edits, then write them; on a failure put back what was written."""
        edits = await plan(bench, self.operations)
        if isinstance(edits, Performed):
            return edits
        written = sum(edit.written_bytes for edit in edits)
        beyond = written - self.effects().written_bytes
        if beyond > bench.written_left_bytes:
            detail = f"the patch writes {written} bytes, more than is left"
            return Performed(status="denied", reasons=(Reason(code="budget.written", detail=detail),))
        problem = await carry_out(bench, edits)
        return problem or _told(edits, written)


def _told(edits: tuple[Edit, ...], written: int) -> Performed:
    diff = "".join(difference(edit) for edit in edits).encode("utf-8", "surrogateescape")
    result: dict[str, JsonValue] = {"success": True}
    for name, kind in (
        ("files_modified", "modified"),
        ("files_created", "created"),
        ("files_deleted", "deleted"),
    ):
        paths: list[JsonValue] = [edit.path for edit in edits if edit.kind == kind]
        if paths:
            result[name] = paths
    if len(edits) == 1:
        result["resolved_path"] = edits[0].path
    digests: dict[str, JsonValue] = {
        edit.path: None if edit.after is None else hashlib.sha256(edit.after).hexdigest() for edit in edits
    }
    return Performed(
        output=diff, written_bytes=written, result=result, observed={"bytes": written, "sha256": digests}
    )


def _uses(operation: Operation) -> tuple[PathUse, ...]:
    if isinstance(operation, AddFile):
        return (PathUse(path=operation.path, access="write"),)
    moved = operation.move_to if isinstance(operation, UpdateFile) else None
    uses = (PathUse(path=operation.path, access="read"), PathUse(path=operation.path, access="write"))
    return uses if moved is None else (*uses, PathUse(path=moved, access="write"))


def _added_bytes(operation: Operation) -> int:
    if isinstance(operation, AddFile):
        return _size(operation.content)
    if isinstance(operation, ReplaceText):
        return _size(operation.new)
    if isinstance(operation, DeleteFile):
        return 0
    return sum(_size(line) + 1 for hunk in operation.hunks for line in hunk.new)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _parse(given: Mapping[str, JsonValue]) -> Action | Reason:
    values = _ARGUMENTS.read(given)
    if isinstance(values, Reason):
        return values
    return _parse_text(values) if values["mode"] == "patch" else _parse_replace(values)


def _parse_text(values: Mapping[str, JsonValue]) -> Action | Reason:
    extra = [name for name in ("path", "old_string", "new_string") if values[name] is not None]
    if values["patch"] is None or extra:
        return Reason(code="arguments.invalid", detail="mode patch takes patch, and nothing of mode replace")
    operations = parse_patch(str(values["patch"]))
    return operations if isinstance(operations, Reason) else PatchFiles(operations=operations)


def _parse_replace(values: Mapping[str, JsonValue]) -> Action | Reason:
    missing = [name for name in ("path", "old_string", "new_string") if values[name] is None]
    if missing or values["patch"] is not None:
        return Reason(code="arguments.invalid", detail="mode replace takes path, old_string and new_string")
    path, old, new = (str(values[name]) for name in ("path", "old_string", "new_string"))
    if not old or old == new:
        return Reason(
            code="arguments.invalid", detail="old_string must not be empty, nor the same as new_string"
        )
    operation = ReplaceText(path=path, old=old, new=new, replace_all=bool(values["replace_all"]))
    return PatchFiles(operations=(operation,))


_ARGUMENTS = Arguments(
    Argument(
        name="mode",
        kind="string",
        description="replace: path, old_string and new_string; patch: a V4A patch text in patch",
        choices=("replace", "patch"),
        default="replace",
    ),
    Argument(name="path", kind="string", description="File to edit (mode replace)"),
    Argument(
        name="old_string",
        kind="string",
        description="Exact text to replace; must occur once unless replace_all (mode replace)",
    ),
    Argument(name="new_string", kind="string", description="What to put in its place (mode replace)"),
    Argument(name="replace_all", kind="boolean", description="Replace every occurrence", default=False),
    Argument(
        name="patch",
        kind="string",
        description=(
            "V4A text (mode patch): *** Begin Patch, then *** Add File: / *** Update File: / "
            "*** Delete File: PATH, *** Move to: PATH, @@ context lines, lines that start with blank, "
            "- or +, then *** End Patch"
        ),
    ),
    Argument(name="cross_profile", kind="boolean", description="Has no meaning here", only=False),
)

PATCH: Final = Tool(
    name="patch",
    description=(
        "Edit files of the workspace: replace one exact text, or apply a V4A patch to several files. "
        "All edits are made or none. Answers a unified diff."
    ),
    input_schema=_ARGUMENTS.schema(),
    parse=_parse,
    text_field="diff",
)

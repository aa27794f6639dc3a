"""Changes of the workspace that the remit does not cover.

A command's changes are not known beforehand, so they are judged by what is there afterwards: after each
command by name (cheap, so that the record stands next to the call), at the end by the whole diff.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from budgets.reasons import Reason
from budgets.scope import Scope
from sandboxes.workspace.changes import Change


class Grown(NamedTuple):
    """One change outside the write scope."""

    path: str
    change: Literal["added", "modified", "deleted"]
    code: str


def grown_names(scope: Scope, paths: Iterable[str]) -> tuple[Reason, ...]:
    """Judge changed names; a directory on the way to an allowed change is part of that change."""
    judged = {path: scope.growth(path) for path in sorted(paths)}
    covered = _ancestors(path for path, code in judged.items() if code is None)
    return tuple(
        Reason(code=code, detail=path)
        for path, code in judged.items()
        if code is not None and not (code == "growth.beyond_scope" and path in covered)
    )


def grown(scope: Scope, changes: Sequence[Change]) -> tuple[Grown, ...]:
    """Judge the whole diff; a directory that was added to hold an allowed change is part of that change."""
    judged = [(change, scope.growth(change.path)) for change in changes]
    covered = _ancestors(change.path for change, code in judged if code is None)
    return tuple(
        Grown(change.path, change.change, code)
        for change, code in judged
        if code is not None and not (code == "growth.beyond_scope" and _holds_allowed(change, covered))
    )


def _holds_allowed(change: Change, covered: Collection[str]) -> bool:
    return change.change == "added" and change.kind == "directory" and change.path in covered


def _ancestors(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found

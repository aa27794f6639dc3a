"""Put a run's changes into the user's tree, unless the user touched the same files since the run was opened.

What a change replaces is known from the end of the run, not from its start: an edit made in between would
look as if the run had seen it. The file's change time tells. Wrong cases: edits within the clock's grain of
the opening (some milliseconds) are missed; a chmod or writing the same content again counts as an edit.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sandboxes.workspace.apply import ApplyReport, Conflict, apply_changes
from sandboxes.workspace.changes import Change
from sandboxes.workspace.manifest import Manifest
from sandboxes.workspace.names import escape_name


def commit(manifest: Manifest, tree: Path, *, opened_us: int) -> ApplyReport:
    """Apply all changes or, on any conflict, none.

    ``opened_us`` is when the run was opened, in microseconds since 1970, as in the details of ``run.opened``.

    Raises:
        ApplyFailed: The tree could not be written; says how far it came.
    """
    edited = tuple(_edited(manifest, tree, opened_us))
    if edited:
        return ApplyReport(outcome="conflict", conflicts=edited)
    return apply_changes(manifest, tree)


def _edited(manifest: Manifest, tree: Path, opened_us: int) -> Iterator[Conflict]:
    for change in manifest.changes:
        if change.before_kind in (None, "directory"):
            continue
        seen = _seen(tree / change.path)
        if (
            seen is None
            or seen.st_ctime_ns // 1000 <= opened_us
            or (_is_done(tree / change.path, seen, change))
        ):
            continue
        yield Conflict(path=escape_name(change.path), detail="was touched since the run was opened")


def _seen(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_done(path: Path, seen: os.stat_result, change: Change) -> bool:
    if not stat.S_ISREG(seen.st_mode) or change.sha256 is None or seen.st_size != change.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == change.sha256

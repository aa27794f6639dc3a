"""The workspace as layers: the user's tree below, a run's changes on top."""

from __future__ import annotations

from sandboxes.workspace.apply import ApplyReport, Conflict, apply_changes
from sandboxes.workspace.changes import Change, LayerBounds, changed_paths, read_changes
from sandboxes.workspace.diff import render_diff
from sandboxes.workspace.errors import (
    ApplyFailed,
    ChangesInvalid,
    LayerUnreadable,
    RestoreFailed,
    WorkspaceError,
)
from sandboxes.workspace.manifest import Manifest, discard, export_changes, load_manifest
from sandboxes.workspace.names import escape_name, unescape_name
from sandboxes.workspace.restore import restore_changes

__all__ = [
    "ApplyFailed",
    "ApplyReport",
    "Change",
    "ChangesInvalid",
    "Conflict",
    "LayerBounds",
    "LayerUnreadable",
    "Manifest",
    "RestoreFailed",
    "WorkspaceError",
    "apply_changes",
    "changed_paths",
    "discard",
    "escape_name",
    "export_changes",
    "load_manifest",
    "read_changes",
    "render_diff",
    "restore_changes",
    "unescape_name",
]

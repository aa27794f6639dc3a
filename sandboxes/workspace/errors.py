"""What can go wrong between a layer of changes and the tree below it.

SandboxError
└── WorkspaceError
    ├── LayerUnreadable     the layer is not what a backend makes, or changed while it was read
    ├── ChangesInvalid      exported changes are missing, damaged or not ours
    ├── ApplyFailed         the tree could not be written; says how far it came
    └── RestoreFailed       a fresh sandbox did not take the changes
"""

from __future__ import annotations

from sandboxes.base import FileProblemKind
from sandboxes.errors import SandboxError


class WorkspaceError(SandboxError):
    """The changes of a run could not be read, kept or put back."""

    code = "sandbox.integrity"


class LayerUnreadable(WorkspaceError):
    """A layer holds something that no backend makes, or moved while it was being read."""


class ChangesInvalid(WorkspaceError):
    """Exported changes are missing, damaged or in no known format."""


class ApplyFailed(WorkspaceError):
    """The user's tree could not be written in the middle of an apply."""

    code = "sandbox.died"


class RestoreFailed(WorkspaceError):
    """A sandbox refused a file operation that would have put a change back; ``kind`` is how."""

    code = "sandbox.start"

    def __init__(self, message: str, *, kind: FileProblemKind, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind

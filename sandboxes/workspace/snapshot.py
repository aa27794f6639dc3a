"""The changes of one sandbox that was closed, read once, with their content where it lies."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Self

from sandboxes.base import Layer, Sandbox
from sandboxes.workspace.changes import Change, read_changes
from sandboxes.workspace.cursor import TreeCursor, open_file
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.names import parts_of
from sandboxes.workspace.restore import Content


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a closed sandbox left. Nothing is copied: the content stays in its layer.

    Attributes:
        sandbox: Held, because its layer lives no longer than it does.
    """

    sandbox: Sandbox
    changes: tuple[Change, ...]

    @classmethod
    def of(cls, sandbox: Sandbox) -> Self:
        """Read the changes of a sandbox that was closed.

        Raises:
            LayerUnreadable: The layer cannot be believed.
        """
        return cls(sandbox=sandbox, changes=read_changes(sandbox.layer))

    @property
    def layer(self) -> Layer:
        """The layer that holds the content."""
        return self.sandbox.layer

    def content(self, change: Change) -> Content:
        """Read the content of a changed file, and when it was modified.

        Raises:
            LayerUnreadable: It is not what the change says.
        """
        *parents, name = parts_of(change.path)
        try:
            with TreeCursor(self.layer.upper_fd, unlock=0o500) as cursor:
                cursor.move_to(parents)
                with open(open_file(cursor.fd, name, unlock=True), "rb", buffering=0) as file:
                    modified_ns = _carried_time(os.fstat(file.fileno()).st_mtime_ns)
                    data = file.readall()
        except OSError as error:
            raise LayerUnreadable(f"the layer over {self.layer.lower} cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != change.sha256:
            raise LayerUnreadable(f"{name!r} changed after its sandbox was closed")
        return Content(data, modified_ns)


def _carried_time(modified_ns: int) -> int | None:
    """Return a time that fits into 64 bits, as all up to the year 2262 do; another is not carried."""
    return modified_ns if -(2**63) <= modified_ns < 2**63 else None


def changes_between(before: Snapshot, after: Snapshot) -> tuple[Change, ...]:
    """Give the changes by which one state differs from an earlier one over the same tree, in order of path.

    A path that is again as the tree has it comes as the change that it was before. Of kind ``other`` nothing
    is carried from one sandbox to the next, so that it is gone is no change.
    """
    old = {
        change.path: change
        for change in before.changes
        if change.change == "deleted" or change.kind != "other"
    }
    new = {change.path: change for change in after.changes}
    differing = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
    return tuple(new.get(path) or old[path] for path in sorted(differing))

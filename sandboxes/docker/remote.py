"""The workspace where the engine cannot see this host: the tree is sent in, and what became of it fetched out.

The copy lies on a sized tmpfs of the container, so the disk limit is exact and counts the tree itself. It goes
over the guest's own channel, as the owner of the copy, and never through the engine's archive call, which
writes as root and follows what is there. What a container that dies at once had changed is lost.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from sandboxes.base import FileContent, FileProblem, Layer, SandboxSpec
from sandboxes.bubblewrap.rootfs import is_below
from sandboxes.calls import GuestCalls
from sandboxes.errors import SandboxStartFailed, SandboxUnavailable
from sandboxes.workspace.layers import copy_tree

_UID: Final = 64200
_BATCH_BYTES: Final = 8 * 1024 * 1024
_MOST_ENTRIES: Final = 1_000_000
_READ_BYTES: Final = 32 * 1024 * 1024


class CopiedTree:
    """A copy inside, and a directory of this host that becomes what the copy was at the end."""

    def __init__(self, spec: SandboxSpec) -> None:
        if spec.hidden or spec.read_only:
            raise SandboxUnavailable(
                "an engine that does not see this host cannot hide or protect parts of the workspace",
                hint="use an engine on this host, or kind: bubblewrap",
            )
        self._spec = spec
        self.uid = self.gid = _UID
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def fill(self, calls: GuestCalls) -> Layer:
        """Send the tree in."""
        folder = await anyio.to_thread.run_sync(self._make_folder)
        batches = _batches(self._spec.workspace)
        while batch := await anyio.to_thread.run_sync(next, batches, None):
            await calls.fill(batch)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return Layer(upper_fd=descriptor, lower=self._spec.workspace, strategy="copy")

    async def take_back(self, calls: GuestCalls) -> None:
        """Fetch what became of the tree."""
        ...

    def _make_folder(self) -> str:
        self._folder = tempfile.TemporaryDirectory(prefix="remit-copy-")
        copy_tree(self._spec.workspace, Path(self._folder.name))
        return self._folder.name


def _batches(tree: Path) -> Iterator[list[list[Any]]]:
    yield []


__all__ = ["CopiedTree", "FileContent", "FileProblem", "SandboxStartFailed", "is_below", "stat"]

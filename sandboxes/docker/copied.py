"""The workspace at an engine that does not see this host: sent at the start, brought back after each call.

A command may write through a mapping, which leaves no trace but the content. So after each command every
file is read where it lies, and what differs is brought here: a call costs the reading of the whole tree in
the engine's memory and the transfer of what changed. A file tool costs a look at every entry. What a call
left is here before the call is answered; if it cannot be brought, the call fails and the sandbox with it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.from_thread
import anyio.to_thread

from sandboxes.base import Layer, SandboxSpec
from sandboxes.bubblewrap.copying import MOST_BYTES, Extent, room_here
from sandboxes.bubblewrap.rootfs import is_below
from sandboxes.docker.config import Copied, Plan
from sandboxes.docker.engine import Engine
from sandboxes.docker.holder import Holder, blocking_fetch
from sandboxes.docker.mirror import Mirror, Torn
from sandboxes.docker.place import Place
from sandboxes.docker.shipment import Record, load, tar_of
from sandboxes.errors import SandboxDied, SandboxStartFailed
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.names import parts_of

_TRIES: Final = 3
_SLACK_ENTRIES: Final = 16
_HOLE_BYTES: Final = 1 << 30


class CopiedTree:
    """The tree here and at the engine."""

    def __init__(self, spec: SandboxSpec, place: Place) -> None:
        self._spec = spec
        self._place = place
        self._hidden = tuple(parts_of(path) for path in spec.hidden)
        self._mirror = Mirror(place.folder, spec.workspace, hidden=self._hidden)
        self._extent = Extent(size_bytes=0, entries=0)
        self._holder: Holder | None = None
        self._turn = anyio.Lock()
        self._asked = 0
        self._covered = 0
        self._running = 0
        # Whether a command may have written since the last survey began.
        self._ran = True

    @property
    def layer(self) -> Layer:
        """What the calls that were answered have left."""
        return self._mirror.layer

    def load(self) -> None:
        """Copy the user's tree, in this thread.

        Raises:
            SandboxUnavailable: It cannot be had, or is too large.
        """
        source = os.open(self._spec.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            records, self._extent = load(source, self._mirror.layer.upper_fd, room=_room())
        finally:
            os.close(source)
        self._mirror.begin(tuple(sorted(records, key=lambda record: record.parts)))

    def volume(self, name: str, *, owned: bool) -> Copied:
        """Return the volume that the tree is sent into."""
        spec, mode = self._spec, os.stat(self._spec.workspace).st_mode
        hidden = [path for path in spec.hidden if not any(_lies_in(path, other) for other in spec.hidden)]
        kept = [path for path in spec.read_only if not any(is_below(path, other) for other in hidden)]
        covers = [path for path in sorted((*kept, *hidden)) if not (spec.workspace / path).is_symlink()]
        return Copied(
            volume=name,
            size_bytes=self._extent.size_bytes,
            entries=self._extent.entries + _SLACK_ENTRIES,
            mode=(mode & 0o777) | 0o700,
            read_only=tuple(f"{spec.mount}/{path}" for path in covers),
            owned=owned,
        )

    async def send(self, engine: Engine, plan: Plan) -> None:
        """Have the engine hold the tree.

        Raises:
            SandboxError: It does not.
        """
        holder = self._holder = await Holder.create(engine, plan)
        await holder.open(plan.mount)
        pieces = tar_of(self._mirror.layer.upper_fd, self._mirror.records, hidden=self._hidden, uid=plan.uid)
        shown = [record for record in self._mirror.records if not self._is_covered(record)]
        await holder.make_links(shown, uid=plan.uid)
        await holder.send(plan.mount, pieces)
        sent = _essence(self._mirror.records)
        await self.bring()
        if _essence(self._mirror.records) != sent:
            raise SandboxStartFailed("the engine holds another tree than it was sent")

    @asynccontextmanager
    async def command(self) -> AsyncIterator[None]:
        """Be running a command while in this context."""
        self._running += 1
        self._ran = True
        try:
            yield
        finally:
            self._running -= 1

    async def bring(self) -> None:
        """Bring here what the workspace holds now; many who ask at once share one look.

        Raises:
            SandboxError: It cannot be had.
        """
        self._asked += 1
        mine = self._asked
        async with self._turn:
            if self._covered >= mine:
                return
            covering = self._asked
            for _ in range(_TRIES):
                if await self._brought():
                    self._covered = covering
                    return
            raise SandboxDied("the workspace does not hold still long enough to be brought back")

    def remove_now(self) -> None:
        """Remove what the engine has of it but the volume, in this thread."""
        if self._holder is not None:
            self._holder.remove_now()

    def let_go(self) -> None:
        """Let the holder end."""
        if self._holder is not None:
            self._holder.let_go()

    def let_go_of_states(self) -> None:
        """Close every state; they are removed with the place."""
        self._mirror.close()

    async def _brought(self) -> bool:
        if self._holder is None:
            raise SandboxDied("the workspace is not at the engine any more")
        at_rest = self._running == 0 and not self._ran
        self._ran = self._running > 0
        try:
            most = self._extent.entries + self._spec.limits.inodes + _SLACK_ENTRIES
            surveyed = await self._holder.survey(at_rest=at_rest, most_entries=most)
            self._require_bounded(surveyed)
            await anyio.to_thread.run_sync(self._mirror.settle, surveyed, blocking_fetch(self._holder))
        except Torn:
            self._ran = True
            return False
        except (OSError, LayerUnreadable) as error:
            self._ran = True
            raise SandboxDied(f"what the workspace holds cannot be kept here: {error}") from error
        except BaseException:
            self._ran = True
            raise
        return True

    def _is_covered(self, record: Record) -> bool:
        return any(record.parts[: len(path)] == path != record.parts for path in self._hidden)

    def _require_bounded(self, surveyed: tuple[Record, ...]) -> None:
        most = self._extent.size_bytes + self._spec.limits.disk_bytes + _HOLE_BYTES
        if sum(record.size for record in surveyed) > most:
            raise SandboxDied(f"the workspace holds more than the {most} bytes that may come back")


def _essence(records: tuple[Record, ...]) -> list[tuple[object, ...]]:
    """Return what an engine has to keep; of times it may lose the fractions."""
    return [(record.parts, record.kind, record.mode, record.content) for record in records]


def _room() -> Extent:
    room = room_here()
    return Extent(size_bytes=min(room.size_bytes, MOST_BYTES), entries=room.entries)


def _lies_in(path: str, other: str) -> bool:
    return path != other and is_below(path, other)

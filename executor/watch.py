"""After a command: which changes has it made that the remit does not cover?

A file that another call is just writing shows under a temporary name. So what looks like growth while file
tools are at work is looked at again when they are done, and only what is still there counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import anyio
from anyio import to_thread

from budgets.call import Effects
from budgets.reasons import Reason
from budgets.scope import Scope
from executor.evidence.growth import grown_names
from executor.tools.base import shown
from sandboxes.base import Layer
from sandboxes.workspace.changes import changed_paths
from sandboxes.workspace.errors import LayerUnreadable

_FEW_FILES: Final = 1000
_SHOWN: Final = 20
_WAIT_SECONDS: Final = 10.0


class Seen(NamedTuple):
    """What one look showed."""

    changed: tuple[str, ...]
    grown: tuple[Reason, ...]


NOTHING_SEEN: Final = Seen((), ())


class Watch:
    """What was already seen to have changed in one run's workspace."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._known: frozenset[str] = frozenset()
        self._writers: set[anyio.Event] = set()

    @contextmanager
    def writing(self, effects: Effects) -> Iterator[None]:
        """Be known as a call that writes files, while in this context."""
        if not any(use.access == "write" for use in effects.paths):
            yield
            return
        done = anyio.Event()
        self._writers.add(done)
        try:
            yield
        finally:
            self._writers.discard(done)
            done.set()

    async def start_from(self, layer: Layer) -> None:
        """Take what an earlier process has left for seen: its own calls answered for that."""
        try:
            self._known = await _paths(layer)
        except LayerUnreadable:
            # The first look will say so.
            self._known = frozenset()

    async def look(self, layer: Layer) -> Seen:
        """Tell what changed since the last look, and what of it the write scope does not cover."""
        try:
            new = await _paths(layer) - self._known
            found = grown_names(self._scope, new)
            if found and self._writers:
                await self._writers_done()
                new &= await _paths(layer)
                found = grown_names(self._scope, new)
        except LayerUnreadable as error:
            unreadable = Reason(code="growth.beyond_scope", detail=f"the changes cannot be read: {error}")
            return Seen(changed=(), grown=(unreadable,))
        self._known |= new
        return Seen(changed=tuple(sorted(new)), grown=by_code(found))

    async def _writers_done(self) -> None:
        with anyio.move_on_after(_WAIT_SECONDS):
            for done in tuple(self._writers):
                await done.wait()


async def _paths(layer: Layer) -> frozenset[str]:
    # A thread costs more than looking at a few files, and a loop that stands still costs everybody.
    place = os.fstatvfs(layer.upper_fd)
    if layer.strategy == "overlay" and place.f_files - place.f_ffree < _FEW_FILES:
        return changed_paths(layer)
    return await to_thread.run_sync(changed_paths, layer)


def by_code(found: Sequence[Reason]) -> tuple[Reason, ...]:
    """Join reasons that name one path each into one a code."""
    paths: dict[str, list[str]] = {}
    for reason in found:
        paths.setdefault(reason.code, []).append(reason.detail)
    return tuple(Reason(code=code, detail=listed(names)) for code, names in paths.items())


def listed(names: Sequence[str]) -> str:
    """Name some paths in a sentence and count the rest."""
    more = len(names) - _SHOWN
    return ", ".join(map(shown, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")

"""The sandbox of one run: opened once, replaced with all that was in it when it died, closed once.

``executor.call_workshop`` has the one for a sandbox for each call.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import anyio
from anyio import to_thread

from sandboxes.base import Layer, Sandbox, SandboxSpec
from sandboxes.errors import SandboxDied
from sandboxes.workspace.manifest import Manifest, export_changes
from sandboxes.workspace.restore import KeptChanges, restore_changes

SandboxFactory: TypeAlias = Callable[[SandboxSpec], AbstractAsyncContextManager[Sandbox]]

MAX_RESTARTS: Final = 8
_CLOSE_SECONDS: Final = 10.0


class Entered(NamedTuple):
    """A live sandbox and the context that ends it."""

    context: AbstractAsyncContextManager[Sandbox]
    sandbox: Sandbox

    async def leave(self) -> bool:
        """End the sandbox, also for a caller that was cancelled; False when it did not end in time."""
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await self.context.__aexit__(None, None, None)
            return True
        return False


class Workshop:
    """Gives the live sandbox to whoever has an allowed action to carry out."""

    def __init__(
        self,
        spec: SandboxSpec,
        factory: SandboxFactory,
        *,
        spool: Path,
        opened: Callable[[Sandbox], None],
    ) -> None:
        self.spec = spec
        self.restarts = 0
        self.factory = factory
        self._spool = spool
        self._opened = opened
        self._entered: Entered | None = None
        # Its layer lives as long as the object does, which is longer than the sandbox itself.
        self._kept: Sandbox | None = None
        self._closed = False
        self._replacing = anyio.Lock()

    @property
    def layer(self) -> Layer | None:
        """The changes so far, also those of a sandbox that is gone."""
        return None if self._kept is None else self._kept.layer

    async def open(self, manifest: Manifest | None) -> Sandbox:
        """Open the sandbox, with the changes of an earlier one in it.

        Raises:
            SandboxError: It cannot be had.
        """
        entered = await self._enter(manifest)
        try:
            self._opened(entered.sandbox)
        except BaseException:
            await entered.leave()
            raise
        self._entered, self._kept = entered, entered.sandbox
        return entered.sandbox

    async def sandbox(self) -> Sandbox:
        """Give the live sandbox; one that died is replaced first.

        Raises:
            SandboxError: It died and there is no other one to be had.
        """
        if self._entered is not None:
            return self._entered.sandbox
        async with self._replacing:
            return await self._replaced() if self._entered is None else self._entered.sandbox

    async def discard(self, sandbox: Sandbox) -> None:
        """Give up a sandbox that failed; calls that are still in it fail, the next one gets another."""
        if self._entered is not None and self._entered.sandbox is sandbox:
            await self._leave()

    async def close(self) -> Layer:
        """Kill everything inside and give the changes, which nothing can alter any more."""
        self._closed = True
        await self._leave()
        if self._kept is None:
            raise SandboxDied("the sandbox was never open")
        return self._kept.layer

    def clear(self) -> None:
        """Remove what was kept to replace a sandbox; its changes are all in the layer."""
        shutil.rmtree(self._spool, ignore_errors=True)

    async def _replaced(self) -> Sandbox:
        layer = self.layer
        if layer is None or self._closed:
            raise SandboxDied("the sandbox is closed")
        if self.restarts >= MAX_RESTARTS:
            raise SandboxDied(f"the sandbox died {self.restarts} times and is not opened again")
        self.restarts += 1
        kept = await to_thread.run_sync(export_changes, layer, self._spool / f"restart-{self.restarts}")
        return await self.open(kept)

    async def _enter(self, kept: KeptChanges | None) -> Entered:
        """Open a sandbox and put changes into it."""
        context = self.factory(self.spec)
        entered = Entered(context, await context.__aenter__())
        try:
            if kept is not None:
                await restore_changes(kept, entered.sandbox)
        except BaseException:
            await entered.leave()
            raise
        return entered

    async def _leave(self) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.leave()

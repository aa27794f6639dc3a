"""A fresh sandbox for each call, over the user's tree and the changes that earlier calls were let leave.

What the run has so far is one closed sandbox, whose layer nothing can alter any more. A call gets a sandbox
of its own, into which those changes were put. When the call is over that sandbox is closed, and with it
everything in it is dead; then its layer takes the place of what the run has, or is dropped. The place is
taken by one assignment, so there is no moment in which half of a call's changes are there.

A layer takes the place only after its changes were put into a sandbox, the next call's: so what cannot be
carried over is refused while it can still be said to the call that left it. One call at a time: the caller
sees to that.
"""

from __future__ import annotations

from typing import Final

import anyio
from anyio import to_thread

from executor.workshop import MAX_RESTARTS, Entered, Workshop
from sandboxes.base import Layer, Sandbox
from sandboxes.errors import SandboxDied, SandboxError, SandboxUnresponsive
from sandboxes.workspace.errors import RestoreFailed
from sandboxes.workspace.manifest import Manifest
from sandboxes.workspace.snapshot import Snapshot

_FILL_SECONDS: Final = 120.0


class CallWorkshop(Workshop):
    """Gives each call a sandbox in which nothing has run."""

    _state: Snapshot | None = None
    _waiting: Entered | None = None

    @property
    def state(self) -> Snapshot:
        """What the run has so far.

        Raises:
            SandboxDied: It was never opened.
        """
        if self._state is None:
            raise SandboxDied("the sandbox was never open")
        return self._state

    async def open(self, manifest: Manifest | None) -> Sandbox:
        """Open a sandbox in which no call runs: it can be had, and holds what an earlier process has changed.

        Raises:
            SandboxError: It cannot be had.
        """
        sandbox = await super().open(manifest)
        self._state = await self._left()
        return sandbox

    async def sandbox(self) -> Sandbox:
        """Give a sandbox to one call. It ends with ``ended``, ``discard`` or ``dismiss``.

        Raises:
            SandboxError: There is none to be had, or too many have died.
        """
        self._require_open()
        if self.restarts >= MAX_RESTARTS:
            raise SandboxDied(f"the sandbox died {self.restarts} times and is not opened again")
        entered, self._waiting = self._waiting, None
        if entered is None:
            entered = await self._filled(self.state)
        try:
            self._require_open()
            self._opened(entered.sandbox)
        except BaseException:
            await entered.leave()
            raise
        self._entered = entered
        return entered.sandbox

    async def discard(self, sandbox: Sandbox) -> None:
        """Give up a sandbox that failed, with all that the call did in it."""
        if self._entered is not None and self._entered.sandbox is sandbox:
            self.restarts += 1
            await self._leave()

    async def dismiss(self) -> None:
        """End the call's sandbox, should it still live, and drop what the call did in it."""
        await self._leave()

    async def ended(self) -> Snapshot | None:
        """End the call's sandbox and read what the run would then have; None when it was given up before.

        Raises:
            LayerUnreadable: What the call left cannot be believed.
            SandboxUnresponsive: The sandbox did not end.
        """
        return None if self._entered is None else await self._left()

    async def keep(self, snapshot: Snapshot) -> None:
        """Let what a call left be what the run has, and have a sandbox ready for the next one.

        Raises:
            RestoreFailed: It cannot be carried over; the run has what it had.
            SandboxDied: The run was closed meanwhile; the same.
        """
        waiting = await self._tried(snapshot)
        if self._closed and waiting is not None:
            await waiting.leave()
        self._require_open()
        self._state, self._kept, self._waiting = snapshot, snapshot.sandbox, waiting

    async def close(self) -> Layer:
        """Kill everything inside and give the changes, which nothing can alter any more."""
        self._closed = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            await waiting.leave()
        return await super().close()

    async def _left(self) -> Snapshot:
        entered, self._entered = self._entered, None
        if entered is None:
            raise SandboxDied("the sandbox is closed")
        if not await entered.leave():
            raise SandboxUnresponsive("the sandbox did not end, so what is in it cannot be believed")
        return await to_thread.run_sync(Snapshot.of, entered.sandbox)

    async def _tried(self, snapshot: Snapshot) -> Entered | None:
        try:
            return await self._filled(snapshot)
        except RestoreFailed:
            raise
        except SandboxError:
            # Nothing against the changes: the next call opens one, or says itself why it has none.
            return None

    async def _filled(self, snapshot: Snapshot) -> Entered:
        try:
            with anyio.fail_after(_FILL_SECONDS):
                return await self._enter(snapshot)
        except TimeoutError:
            raise SandboxUnresponsive(f"a fresh sandbox was not ready within {_FILL_SECONDS:.0f} s") from None

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxDied("the sandbox is closed")

"""Carry out what was allowed, in the run's sandbox, and see what it changed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

import anyio

from budgets.budget import Remaining
from budgets.call import Effects
from budgets.remit import Remit
from executor.tools.base import Action, Bench, Performed, Tool, failed
from executor.watch import NOTHING_SEEN, Seen, Watch
from executor.workshop import Workshop
from sandboxes.base import Sandbox
from sandboxes.errors import SandboxError

_GRACE_SECONDS = 30.0
_AT_ONCE: Final = nullcontext(True)


class Performer:
    """Turns an allowed action into what came of it; a sandbox that fails is given up and replaced."""

    def __init__(self, *, remit: Remit, workshop: Workshop) -> None:
        self._rules = remit.sandbox
        self._scope = remit.scope.compiled
        self._workshop = workshop
        self._watch = Watch(self._scope)

    def turn(self, left: Callable[[], Remaining]) -> AbstractAsyncContextManager[bool]:
        """Wait until a call may run, False when no time is left for it; here any number run at once."""
        del left
        return _AT_ONCE

    async def take_up(self) -> None:
        """Let what an earlier process has changed be nothing that a call of this one did."""
        if self._workshop.layer is not None:
            await self._watch.start_from(self._workshop.layer)

    async def perform(self, tool: Tool, action: Action, *, effects: Effects, left: Remaining) -> Performed:
        """Do it; a failure of the machinery is an outcome of status ``error`` with its code."""
        try:
            sandbox = await self._workshop.sandbox()
        except SandboxError as error:
            return failed(error.code, str(error))
        with self._watch.writing(effects):
            return await self._held(tool, action, self._bench(sandbox, left))

    async def seen(self, tool: Tool) -> Seen:
        """Tell what a command that just ended has changed; other tools change only what they declared."""
        layer = self._workshop.layer
        return await self._watch.look(layer) if tool.runs_command and layer is not None else NOTHING_SEEN

    async def _held(self, tool: Tool, action: Action, bench: Bench) -> Performed:
        failure = None
        try:
            with anyio.move_on_after(min(tool.deadline_seconds, bench.timeout_seconds + _GRACE_SECONDS)):
                return await action.perform(bench)
        except SandboxError as error:
            failure = failed(error.code, str(error))
        await self._workshop.discard(bench.sandbox)
        return failure or failed("sandbox.unresponsive", f"{tool.name}: no answer, the sandbox was killed")

    def _bench(self, sandbox: Sandbox, left: Remaining) -> Bench:
        return Bench(
            sandbox=sandbox,
            scope=self._scope,
            timeout_seconds=min(self._rules.command_timeout, left.wall_seconds),
            max_output_bytes=self._rules.command_output,
            output_left_bytes=left.output_bytes,
            written_left_bytes=left.written_bytes,
        )

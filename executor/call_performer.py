"""Carry out one call in a sandbox of its own, and let its changes become the run's, all of them or none.

Calls run one after the other, in the order in which they were decided: each one sees all that those before it
left, and two can never have changed the same path without knowing of each other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import NamedTuple

import anyio

from budgets.budget import Remaining
from budgets.call import Effects
from budgets.reasons import Reason
from budgets.remit import Remit
from executor.call_workshop import CallWorkshop
from executor.evidence.growth import Grown, grown
from executor.performer import Performer
from executor.tools.base import Action, Performed, PerformedStatus, Tool, failed
from executor.watch import NOTHING_SEEN, Seen, by_code, listed
from sandboxes.base import LimitName
from sandboxes.errors import SandboxError
from sandboxes.workspace.changes import Change
from sandboxes.workspace.errors import LayerUnreadable, RestoreFailed
from sandboxes.workspace.snapshot import Snapshot, changes_between


class Refusal(NamedTuple):
    """Why nothing of what a call changed is kept."""

    status: PerformedStatus
    reason: Reason
    limit: LimitName | None = None


class CallPerformer(Performer):
    """Turns an allowed action into what came of it, each one in a sandbox in which nothing has run."""

    def __init__(self, *, remit: Remit, workshop: CallWorkshop) -> None:
        super().__init__(remit=remit, workshop=workshop)
        self._calls = workshop
        self._refuses_growth = remit.scope.growth == "refuse"
        self._one_at_a_time = anyio.Lock()
        self._seen = NOTHING_SEEN

    def turn(self, left: Callable[[], Remaining]) -> AbstractAsyncContextManager[bool]:
        """Wait until the calls before this one are over; False when the run's time is over before."""
        return self._turn(left().wall_seconds)

    async def take_up(self) -> None:
        """Nothing to do: what an earlier process has changed is in the state that calls are compared with."""

    async def perform(self, tool: Tool, action: Action, *, effects: Effects, left: Remaining) -> Performed:
        """Do it and keep its changes, or refuse them; needs the turn.

        A cancelled call leaves nothing, unless its changes were kept already.
        """
        self._seen = NOTHING_SEEN
        try:
            sandbox = await self._calls.sandbox()
        except SandboxError as error:
            return failed(error.code, str(error))
        try:
            performed = await self._held(tool, action, self._bench(sandbox, left))
            changes = tool.runs_command or any(use.access == "write" for use in effects.paths)
            performed, fate = await self._settled(performed) if changes else (performed, "none")
        except SandboxError as error:
            performed, fate = failed(error.code, str(error)), "dropped"
        finally:
            await self._calls.dismiss()
        observed = {**performed.observed, "sandbox": sandbox.identity.id, "changes": fate}
        return replace(performed, observed=observed)

    async def seen(self, tool: Tool) -> Seen:
        """Tell what the call that has the turn has changed."""
        del tool
        return self._seen

    @asynccontextmanager
    async def _turn(self, wait_seconds: float) -> AsyncIterator[bool]:
        with anyio.move_on_after(wait_seconds) as scope:
            await self._one_at_a_time.acquire()
        if scope.cancelled_caught:
            yield False
            return
        try:
            yield True
        finally:
            self._one_at_a_time.release()

    async def _settled(self, performed: Performed) -> tuple[Performed, str]:
        before = self._calls.state
        try:
            after = await self._calls.ended()
        except LayerUnreadable as error:
            reason = Reason(code="scope.growth", detail=f"the changes cannot be read: {error}")
            return _refused(performed, Refusal("denied", reason)), "refused"
        if after is None:
            return performed, "dropped"
        changed = changes_between(before, after)
        if not changed:
            return performed, "none"
        refusal = self._objection(changed, after) or await self._kept(after)
        self._seen = Seen(tuple(change.path for change in changed), ())
        if refusal is not None:
            return _refused(performed, refusal), "refused"
        self._seen = self._seen._replace(grown=self._grown(changed))
        return performed, "kept"

    def _grown(self, changed: Sequence[Change]) -> tuple[Reason, ...]:
        found = grown(self._scope, changed)
        return by_code([Reason(code=one.code, detail=one.path) for one in found])

    def _objection(self, changed: Sequence[Change], after: Snapshot) -> Refusal | None:
        spec = self._calls.spec
        for code, covers in (("scope.deny", spec.hidden), ("scope.protect", spec.read_only)):
            # A cover holds while it lies where it was put. What seems to have changed below it was moved
            # away from under it, and would lie open in the next sandbox.
            moved = [change.path for change in changed if _is_covered(change.path, covers)]
            if moved:
                return Refusal("denied", Reason(code=code, detail=f"moved away: {listed(moved)}"))
        found = grown(self._scope, after.changes) if self._refuses_growth else ()
        if found:
            return Refusal("denied", Reason(code="scope.growth", detail=_told(found)))
        size, most = sum(change.size or 0 for change in after.changes), spec.limits.disk_bytes
        return _too_large(f"{size} bytes of changes, at most {most}") if size > most else None

    async def _kept(self, after: Snapshot) -> Refusal | None:
        try:
            await self._calls.keep(after)
        except RestoreFailed as error:
            if error.kind == "no_space":
                return _too_large(str(error))
            return Refusal("error", Reason(code="call.uncarried", detail=str(error)))
        return None


def _too_large(detail: str) -> Refusal:
    return Refusal("limit", Reason(code="limit.disk", detail=detail), limit="disk")


def _refused(performed: Performed, refusal: Refusal) -> Performed:
    """Say that the call ran and that nothing of what it changed is kept; what it printed stays."""
    reason = refusal.reason
    sentence = f"{reason.code}: {reason.detail}; none of the changes of this call were kept"
    return replace(
        performed,
        status=refusal.status,
        limit=refusal.limit,
        reasons=(reason, *performed.reasons),
        result={**performed.result, "error": sentence},
        ran=True,
    )


def _is_covered(path: str, covers: Sequence[str]) -> bool:
    return any(path == cover or path.startswith(f"{cover}/") for cover in covers)


def _told(found: Sequence[Grown]) -> str:
    guarded = [one.path for one in found if one.code == "growth.protected"]
    beyond = [one.path for one in found if one.code != "growth.protected"]
    parts = (("denied or protected", guarded), ("beyond write", beyond))
    return "; ".join(f"{word}: {listed(paths)}" for word, paths in parts if paths)

"""The same run for plain code: one event loop in a thread of its own, driven call by call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from anyio.from_thread import BlockingPortal, start_blocking_portal

from budgets.budget import Remaining
from budgets.call import JsonValue
from budgets.reasons import Reason
from budgets.remit import Remit
from budgets.route import RouteEvidence
from executor import run as _run
from executor.approval import DEFAULT_TIMEOUT_SECONDS, Approver
from executor.audit.journal import Durability
from executor.closing import RunResult
from executor.outcome import ToolOutcome
from executor.store import RunDirectory, RunStore
from executor.workshop import SandboxFactory
from sandboxes.open import open_sandbox


class Run:
    """One open run. May be used from any thread; calls from several threads run side by side."""

    def __init__(self, portal: BlockingPortal, run: _run.Run) -> None:
        self._portal = portal
        self._run = run

    @property
    def id(self) -> str:
        """The run's name in the store."""
        return self._run.id

    @property
    def directory(self) -> RunDirectory:
        """Where the run is kept."""
        return self._run.directory

    @property
    def remit(self) -> Remit:
        """The contract of the run."""
        return self._run.remit

    @property
    def remaining(self) -> Remaining:
        """What is left of the budget now."""
        return self._run.remaining

    def call(
        self,
        tool: str,
        arguments: Mapping[str, JsonValue],
        *,
        client_call_id: str | None = None,
        source: str | None = None,
    ) -> ToolOutcome:
        """Carry out one tool call under the remit; denial, failure and limit are outcomes.

        Raises:
            RunClosed: The run is over.
        """
        call = partial(self._run.call, client_call_id=client_call_id, source=source)
        return self._portal.call(call, tool, arguments)

    def deny(self, tool: str, arguments: Mapping[str, JsonValue], reason: Reason) -> ToolOutcome:
        """Record and answer a call that no tool of ours stands for.

        Raises:
            RunClosed: The run is over.
        """
        return self._portal.call(self._run.deny, tool, arguments, reason)

    def note_route(self, evidence: RouteEvidence) -> None:
        """Record which model is seen to have answered a turn."""
        self._portal.call(self._run.note_route, evidence)

    def note_turns(self, turns: int) -> None:
        """Say how many turns of a model there were."""
        self._portal.call(self._run.note_turns, turns)

    def finish(self) -> RunResult:
        """Close the sandbox, look at what changed, run the checks, judge, seal and sign.

        Raises:
            RunClosed: The run is over.
            JournalUnavailable: The verdict could not be recorded, so there is none.
        """
        return self._portal.call(self._run.finish)


@contextmanager
def open_run(
    remit: Remit,
    *,
    base: Path,
    store: RunStore | None = None,
    resume: str | None = None,
    source: str = "library",
    approver: Approver | None = None,
    approval_timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    durability: Durability = "process",
    sandbox_factory: SandboxFactory = open_sandbox,
) -> Iterator[Run]:
    """Open a run as ``executor.run.open_run`` does. ``approver`` runs in the event loop's thread.

    Raises:
        RemitUnenforceable: The remit cannot be held to what it promises; nothing was started.
        SandboxUnavailable: This host cannot give the sandbox; nothing was started.
    """
    opening = _run.open_run(
        remit,
        base=base,
        store=store,
        resume=resume,
        source=source,
        approver=approver,
        approval_timeout_seconds=approval_timeout_seconds,
        durability=durability,
        sandbox_factory=sandbox_factory,
    )
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opening) as run:
        yield Run(portal, run)

"""One run under one remit: opened, called, finished or left to be taken up again."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from budgets.budget import Remaining
from budgets.call import JsonValue
from budgets.reasons import Reason
from budgets.remit import Remit
from budgets.route import RouteEvidence
from executor import bodies
from executor.approval import DEFAULT_TIMEOUT_SECONDS, Approver
from executor.audit.journal import Durability
from executor.book import Book
from executor.broker import Broker
from executor.call_performer import CallPerformer
from executor.call_workshop import CallWorkshop
from executor.closing import Closing, RunResult
from executor.errors import RunClosed
from executor.opening import Opened, Opening
from executor.outcome import ToolOutcome
from executor.performer import Performer
from executor.store import RunDirectory, RunStore
from executor.workshop import SandboxFactory, Workshop
from sandboxes.base import Sandbox, SandboxSpec
from sandboxes.open import open_sandbox
from sandboxes.pool import WarmPool

_LEAVE_SECONDS: Final = 60.0
_REST_SECONDS: Final = 10.0


class Run:
    """The door to one run's broker. Made by ``open_run``."""

    def __init__(
        self,
        *,
        broker: Broker,
        book: Book,
        workshop: Workshop,
        closing: Closing,
        directory: RunDirectory,
    ) -> None:
        self.remit = broker.remit
        self._workshop = workshop
        self.directory = directory
        self._broker = broker
        self._book = book
        self._closing = closing
        self._turns = 0
        self._over: str | None = None

    @property
    def id(self) -> str:
        """The run's name in the store."""
        return self.directory.run_id

    @property
    def remaining(self) -> Remaining:
        """What is left of the budget now."""
        return self._broker.ledger.remaining(now_seconds=self._book.elapsed_seconds)

    @property
    def stopped(self) -> Reason | None:
        """Why no further call will run, if so."""
        return self._broker.stopped

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, JsonValue],
        *,
        client_call_id: str | None = None,
        source: str | None = None,
    ) -> ToolOutcome:
        """Carry out one tool call under the remit; denial, failure and limit are outcomes.

        A call with a ``client_call_id`` that was seen before is not run again; it gets its old answer.

        Raises:
            RunClosed: The run is over.
        """
        self._require_open()
        return await self._broker.call(
            tool, arguments, client_call_id=client_call_id, source=source or self._closing.source
        )

    async def deny(self, tool: str, arguments: Mapping[str, JsonValue], reason: Reason) -> ToolOutcome:
        """Record and answer a call that no tool of ours stands for.

        Raises:
            RunClosed: The run is over.
        """
        self._require_open()
        return self._broker.deny(tool, arguments, reason, source=self._closing.source)

    def note_route(self, evidence: RouteEvidence) -> None:
        """Record which model is seen to have answered a turn.

        Raises:
            RunClosed: The run is over.
            JournalUnavailable: It could not be recorded.
        """
        self._require_open()
        self.note_turns(evidence.turn + 1)
        self._book.append("route.noted", bodies.route_noted(evidence))

    def note_turns(self, turns: int) -> None:
        """Say how many turns of a model there were, so that one without evidence is missed."""
        self._turns = max(self._turns, turns)

    async def finish(self) -> RunResult:
        """Close the sandbox, look at what changed, run the checks, judge, seal and sign.

        Raises:
            RunClosed: The run is over.
            JournalUnavailable: The verdict could not be recorded, so there is none.
        """
        self._require_open()
        self._over = "the run is finished"
        await self._end_calls()
        turns = max([self._turns, *(evidence.turn + 1 for evidence in self._book.tally.routes)])
        return await self._closing.finish(ledger=self._broker.ledger, turns=turns)

    async def leave(self) -> None:
        """Keep what was changed and close the journal so that the run can be taken up again."""
        if self._over is None:
            self._over = "the run was left"
            await self._end_calls()
            await self._closing.suspend()

    async def _end_calls(self) -> None:
        """End what is still under way; its records come before those of the run's end."""
        self._broker.stop(Reason(code="run.closed", detail=self._over or "the run is over"))
        await self._workshop.close()
        with anyio.move_on_after(_REST_SECONDS, shield=True):
            await self._broker.rest()

    def _require_open(self) -> None:
        if self._over is not None:
            raise RunClosed(
                f"run {self.id}: {self._over}", hint="open a new run, or resume one that was left"
            )


@asynccontextmanager
async def open_run(
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
) -> AsyncIterator[Run]:
    """Open a run: sandbox, journal, broker. Leaving without ``finish`` keeps everything for ``resume``.

    ``base`` is the directory that a relative ``scope.workspace`` hangs on: the remit file's own.

    Raises:
        RemitUnenforceable: The remit cannot be held to what it promises; nothing was started.
        SandboxUnavailable: This host cannot give the sandbox; nothing was started.
        RunNotResumable: What ``resume`` names was opened under another remit.
        AuditError: The state directory, key or journal cannot be used, or another process has the run.
    """
    opening = Opening(
        remit=remit, base=base, store=store or RunStore.default(), source=source, durability=durability
    )
    with ExitStack() as held:
        opened = await to_thread.run_sync(
            opening.started if resume is None else opening.resumed, held, resume
        )
        async with _opened_ahead(opened.spec, sandbox_factory) as factory:
            workshop = await _workshop(opened, factory, keep_failed=resume is not None)
            performer = _performer(remit, workshop)
            broker = Broker(
                remit=remit,
                ledger=opened.ledger,
                book=opened.book,
                performer=performer,
                answers=opened.answers,
                approver=approver,
                approval_timeout_seconds=approval_timeout_seconds,
                first_call=opened.book.tally.last_call + 1,
            )
            run = Run(
                broker=broker,
                book=opened.book,
                workshop=workshop,
                closing=Closing(opened, remit=remit, workshop=workshop, source=source),
                directory=opened.directory,
            )
            try:
                if resume is not None:
                    await performer.take_up()
                yield run
            finally:
                with anyio.move_on_after(_LEAVE_SECONDS, shield=True):
                    await run.leave()


@asynccontextmanager
async def _opened_ahead(spec: SandboxSpec, factory: SandboxFactory) -> AsyncIterator[SandboxFactory]:
    """Have a sandbox for each call opened while the call before it works.

    A factory of the caller's own says for itself whether sandboxes wait.
    """
    if spec.lifetime != "call" or factory is not open_sandbox:
        yield factory
        return
    async with WarmPool(spec) as pool:
        yield pool.lease


async def _workshop(opened: Opened, factory: SandboxFactory, *, keep_failed: bool) -> Workshop:
    """Open the workshop; of a run that had never begun nothing is kept when that fails."""
    workshop = (CallWorkshop if opened.spec.lifetime == "call" else Workshop)(
        opened.spec,
        factory,
        spool=opened.directory.path / "restarts",
        opened=_noting(opened.book),
    )
    try:
        await workshop.open(opened.manifest)
    except BaseException:
        if not keep_failed:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(partial(shutil.rmtree, opened.directory.path, ignore_errors=True))
        raise
    return workshop


def _performer(remit: Remit, workshop: Workshop) -> Performer:
    if isinstance(workshop, CallWorkshop):
        return CallPerformer(remit=remit, workshop=workshop)
    return Performer(remit=remit, workshop=workshop)


def _noting(book: Book) -> Callable[[Sandbox], None]:
    first: tuple[int, Mapping[str, JsonValue]] | None = None

    def note(sandbox: Sandbox) -> None:
        nonlocal first
        body = bodies.sandbox_opened(sandbox)
        # With a sandbox for each call most of a journal would be what does not differ from one to the next.
        shorter = None if first is None else bodies.like_sandbox(body, first[1], same_as=first[0])
        seq = book.append("sandbox.opened", shorter or body)
        first = first or (seq, body)

    return note

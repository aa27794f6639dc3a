"""The one way from a tool call to a sandbox: decide, reserve, record, run, settle, record, answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import anyio

from budgets.budget import Cost, Remaining
from budgets.call import Effects, JsonValue, ToolCall
from budgets.decide import Decision, cost_of, decide
from budgets.ledger import Ledger
from budgets.reasons import Reason
from budgets.remit import Remit
from executor import bodies
from executor.answers import Answer, Answers, answer_key
from executor.approval import DEFAULT_TIMEOUT_SECONDS, Approval, ApprovalRequest, Approver, ask
from executor.audit.errors import JournalUnavailable
from executor.book import Book
from executor.outcome import Delivered, ToolOutcome, deliver
from executor.performer import Performer
from executor.tally import counts_as_violation
from executor.tools.base import Action, Performed, Tool, failed
from executor.tools.registry import TOOLS, understand
from executor.watch import NOTHING_SEEN, Seen

_FLUSH_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Considered:
    """A call with everything that was found out before it may run."""

    call: ToolCall
    arguments: Mapping[str, JsonValue]
    action: Action | None
    effects: Effects
    cost: Cost
    decision: Decision
    approval: Approval | None = None


class Broker:
    """Carries the calls of one run. Any number of calls may be in flight."""

    def __init__(
        self,
        *,
        remit: Remit,
        ledger: Ledger,
        book: Book,
        performer: Performer,
        answers: Answers,
        approver: Approver | None = None,
        approval_timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        tools: Mapping[str, Tool] = TOOLS,
        first_call: int = 1,
    ) -> None:
        self.remit = remit
        self._ledger = ledger
        self._book = book
        self._answers = answers
        self._approver = approver
        self._approval_timeout_seconds = approval_timeout_seconds
        self._tools = tools
        self._next_call = first_call
        self._stop: Reason | None = None
        self._under_way = 0
        self._idle = anyio.Event()
        self._performer = performer

    @property
    def ledger(self) -> Ledger:
        """What is spent and reserved now."""
        return self._ledger

    @property
    def stopped(self) -> Reason | None:
        """Why no further call will run, if so."""
        return self._stop

    def stop(self, reason: Reason) -> None:
        """Refuse every call from now on; the first reason stays."""
        self._stop = self._stop or reason

    async def rest(self) -> None:
        """Return when no call is under way any more. Stop the broker and close the sandbox first."""
        while self._under_way:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, JsonValue],
        *,
        client_call_id: str | None = None,
        source: str = "library",
    ) -> ToolOutcome:
        """Carry one call from its request to its answer. Whatever is wrong with it is in the answer.

        A call whose ``client_call_id`` was seen before gets the answer that it had.

        Raises:
            JournalClosed: The run is over.
        """
        call = self._new_call(tool, arguments, client_call_id=client_call_id, source=source)
        self._under_way += 1
        try:
            return await self._answered(call, self._book.fingerprint(arguments))
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def deny(
        self,
        tool: str,
        arguments: Mapping[str, JsonValue],
        reason: Reason,
        *,
        client_call_id: str | None = None,
        source: str = "library",
    ) -> ToolOutcome:
        """Record and answer a call that a door found nothing to map to."""
        call = self._new_call(tool, arguments, client_call_id=client_call_id, source=source)
        return self._refused(call, self._book.fingerprint(arguments), (reason,))

    async def _answered(self, call: ToolCall, shown: Mapping[str, JsonValue]) -> ToolOutcome:
        client_call_id = call.client_call_id
        if client_call_id is None:
            return await self._first(call, shown)
        key = answer_key(call.tool, str(shown["digest"]))
        while (answer := self._answers.find(client_call_id)) is not None:
            if answer.key != key:
                return self._another_call(call, shown, answer)
            await answer.ended.wait()
            if self._answers.find(client_call_id) is answer:
                return self._again(call, shown, answer)
        self._answers.claim(client_call_id, key=key, call=call.id)
        try:
            return await self._first(call, shown)
        finally:
            self._answers.settle(client_call_id)

    async def _first(self, call: ToolCall, shown: Mapping[str, JsonValue]) -> ToolOutcome:
        considered = self._considered(call, shown)
        if considered.decision.action == "ask":
            considered = await self._asked(considered)
        action = considered.action
        if considered.decision.action != "allow" or action is None:
            return self._denied(considered)
        try:
            self._book.append("call.decided", _decided(considered))
        except JournalUnavailable as error:
            return self._unrecorded(considered, error)
        return await self._carried_out(considered, action)

    # Decide and charge without an await between them: two calls in flight at once must not both take the
    # last unit of a budget.
    def _considered(self, call: ToolCall, shown: Mapping[str, JsonValue]) -> Considered:
        understood = understand(call, self._tools)
        problems = (understood,) if isinstance(understood, Reason) else ()
        effects = Effects() if isinstance(understood, Reason) else understood.effects()
        decision = self._decision(call, effects, problems)
        cost = cost_of(call, effects)
        self._ledger = self._ledger.note_attempt()
        if decision.action != "deny":
            self._ledger = self._ledger.reserve(call.id, cost)
        return Considered(
            call=call,
            arguments=shown,
            action=None if isinstance(understood, Reason) else understood,
            effects=effects,
            cost=cost,
            decision=decision,
        )

    def _decision(self, call: ToolCall, effects: Effects, problems: tuple[Reason, ...]) -> Decision:
        if self._stop is not None:
            return Decision(action="deny", reasons=(self._stop,))
        return decide(
            self.remit, self._ledger, call, effects, now_seconds=self._book.elapsed_seconds, problems=problems
        )

    async def _asked(self, considered: Considered) -> Considered:
        call = considered.call
        digest = sha256(f"{call.id}\0{call.tool}\0{considered.arguments['digest']}".encode()).hexdigest()
        request = ApprovalRequest(
            run=self._book.run_id,
            call=call.id,
            tool=call.tool,
            arguments=call.arguments,
            digest=digest,
            timeout_seconds=self._approval_timeout_seconds,
        )
        approval, refusal = None, self._stop
        try:
            self._book.append("call.decided", _decided(considered))
            approval = await ask(self._approver, request)
            refusal = approval.refusal or self._stop
        except JournalUnavailable as error:
            refusal = self._lost(error)
        except BaseException:
            self._ledger = self._ledger.release(call.id)
            raise
        if refusal is not None:
            self._ledger = self._ledger.release(call.id)
        decision = Decision(
            action="allow" if refusal is None else "deny", reasons=() if refusal is None else (refusal,)
        )
        return replace(considered, decision=decision, approval=approval)

    def _denied(self, considered: Considered) -> ToolOutcome:
        reasons = considered.decision.reasons
        if counts_as_violation(reasons):
            self._ledger = self._ledger.note_violations()
        try:
            self._book.append("call.decided", _decided(considered))
        except JournalUnavailable as error:
            reasons = (*reasons, self._lost(error))
        return self._outcome(considered.call, Performed(status="denied", reasons=reasons), text="")

    def _unrecorded(self, considered: Considered, error: JournalUnavailable) -> ToolOutcome:
        self._ledger = self._ledger.release(considered.call.id)
        performed = Performed(status="denied", reasons=(self._lost(error),))
        return self._outcome(considered.call, performed, text="")

    async def _carried_out(self, considered: Considered, action: Action) -> ToolOutcome:
        started = self._book.elapsed_seconds
        performed = _CUT_OFF
        seen = NOTHING_SEEN
        try:
            await self._book.flush()
            async with self._performer.turn(self._remaining) as its_turn:
                if self._stop is not None or not its_turn:
                    performed = Performed(status="denied", reasons=(self._stop or _OUT_OF_TIME,))
                else:
                    tool = self._tools[considered.call.tool]
                    performed = await self._performer.perform(
                        tool, action, effects=considered.effects, left=self._remaining()
                    )
                    seen = await self._performer.seen(tool)
        except JournalUnavailable as error:
            performed = Performed(status="denied", reasons=(self._lost(error),))
        finally:
            # Also for a cancelled call: what was begun is charged, and its end is in the journal.
            outcome = self._ended(considered, performed, seen, started)
        if self._book.waits_for_disk:
            with anyio.move_on_after(_FLUSH_SECONDS, shield=True):
                await self._flushed()
        return outcome

    # Steps 11 and 12. Without an await, so that no cancellation comes between the charge and its record.
    def _ended(self, considered: Considered, performed: Performed, seen: Seen, started: float) -> ToolOutcome:
        call = considered.call
        found = [*seen.grown]
        text, output_bytes, cut = self._delivered(performed)
        if cut:
            performed = replace(performed, truncated=True)
        if performed.status == "denied" and counts_as_violation(performed.reasons):
            self._ledger = self._ledger.note_violations()
        if performed.status == "denied" and not performed.ran:
            settled = "released"
            self._ledger = self._ledger.release(call.id)
        else:
            settled = "charged"
            settlement = self._ledger.settle(
                call.id, written_bytes=performed.written_bytes, output_bytes=output_bytes
            )
            self._ledger = settlement.ledger
            found += settlement.overspends
        unbelievable = [reason for reason in performed.reasons if reason.code == "sandbox.integrity"]
        if unbelievable:
            self.stop(Reason(code="run.stopped", detail="the sandbox cannot be believed any more"))
        found += unbelievable
        body = bodies.ended(
            call,
            performed,
            settled=settled,
            output=self._book.output(performed.output, truncated=performed.truncated),
            output_bytes=output_bytes,
            elapsed_us=round((self._book.elapsed_seconds - started) * 1_000_000),
            changed=seen.changed,
        )
        try:
            record = self._book.append("call.ended", body)
            self._note(found, call=call.id, record=record)
        except JournalUnavailable as error:
            performed = replace(performed, reasons=(*performed.reasons, self._lost(error)))
        return self._outcome(call, performed, text=text)

    def _delivered(self, performed: Performed) -> Delivered:
        left = self._ledger.budget.output_bytes - self._ledger.used.output_bytes
        return deliver(performed.output, max_bytes=max(0, left))

    def _note(self, found: Sequence[Reason], *, call: str, record: int) -> None:
        for reason in found:
            self._ledger = self._ledger.note_violations()
            self._book.append("violation", bodies.violated(reason, call=call, record=record))

    def _another_call(self, call: ToolCall, shown: Mapping[str, JsonValue], answer: Answer) -> ToolOutcome:
        detail = f"client call id {call.client_call_id!a} stands for {answer.call}, which was another call"
        return self._refused(
            replace(call, client_call_id=None), shown, (Reason(code="arguments.invalid", detail=detail),)
        )

    def _refused(
        self, call: ToolCall, shown: Mapping[str, JsonValue], reasons: tuple[Reason, ...]
    ) -> ToolOutcome:
        self._ledger = self._ledger.note_attempt()
        considered = Considered(
            call=call,
            arguments=shown,
            action=None,
            effects=Effects(),
            cost=Cost(tool=call.tool),
            decision=Decision(action="deny", reasons=reasons),
        )
        return self._denied(considered)

    def _again(self, call: ToolCall, shown: Mapping[str, JsonValue], answer: Answer) -> ToolOutcome:
        body = {
            "call": answer.call,
            "client_call": call.client_call_id,
            "source": call.source,
            "tool": call.tool[:200],
            "arguments": dict(shown),
        }
        try:
            self._book.append("call.repeated", body)
        except JournalUnavailable as error:
            self._lost(error)
        return self._answers.tell(answer, self._remaining())

    def _outcome(self, call: ToolCall, performed: Performed, *, text: str) -> ToolOutcome:
        tool = self._tools.get(call.tool)
        outcome = ToolOutcome(
            call=call.id,
            status=performed.status,
            reasons=performed.reasons,
            limit=performed.limit,
            exit_code=performed.exit_code,
            output=text,
            truncated=performed.truncated,
            remaining=self._remaining(),
            result=performed.result,
            text_field="output" if tool is None else tool.text_field,
        )
        if call.client_call_id is not None:
            self._answers.keep(call.client_call_id, outcome)
        return outcome

    def _new_call(
        self, tool: str, arguments: Mapping[str, JsonValue], *, client_call_id: str | None, source: str
    ) -> ToolCall:
        number = self._next_call
        self._next_call += 1
        return ToolCall(
            id=f"c-{number:04d}", tool=tool, arguments=arguments, source=source, client_call_id=client_call_id
        )

    def _remaining(self) -> Remaining:
        return self._ledger.remaining(now_seconds=self._book.elapsed_seconds)

    def _lost(self, error: JournalUnavailable) -> Reason:
        reason = Reason(code="audit.unavailable", detail=str(error))
        self.stop(reason)
        return reason

    async def _flushed(self) -> None:
        try:
            await self._book.flush()
        except JournalUnavailable as error:
            self._lost(error)


def _decided(considered: Considered) -> dict[str, JsonValue]:
    allowed = considered.decision.action == "allow"
    return bodies.decided(
        considered.call,
        arguments=considered.arguments,
        action=considered.decision.action,
        reasons=considered.decision.reasons,
        cost=considered.cost if allowed else None,
        effects=None if considered.action is None else considered.effects,
        approval=considered.approval,
    )


_OUT_OF_TIME: Final = Reason(code="budget.wall_time", detail="the run's time was over before the call's turn")
_CUT_OFF: Final = failed("call.cancelled", "the call was given up before its end was seen")

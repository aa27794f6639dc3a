"""Run the calls of a recording again under a remit, or only decide them.

Every recorded call reaches the broker: what nothing maps to, and what has no usable arguments, as a denial.
What the model was told then is compared for information only and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import anyio

from budgets.call import JsonValue
from budgets.reasons import Reason
from budgets.remit import Remit
from budgets.route import RouteEvidence
from executor.outcome import OutcomeStatus, ToolOutcome
from executor.recordings import RecordedCall, Recording
from executor.recordings.tool_map import MappedCall, ToolMap, Unmapped

SOURCE = "replay"


class ReplayTarget(Protocol):
    """What a replay needs of a run."""

    @property
    def remit(self) -> Remit:
        """What the run is under."""
        ...

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, JsonValue],
        *,
        client_call_id: str | None = None,
        source: str | None = None,
    ) -> ToolOutcome:
        """Carry one call to its answer."""
        ...

    async def deny(self, tool: str, arguments: Mapping[str, JsonValue], reason: Reason) -> ToolOutcome:
        """Record a call that cannot be put, with the reason."""
        ...

    def note_turns(self, turns: int) -> None:
        """Take in how many answers of a model there were."""
        ...

    def note_route(self, evidence: RouteEvidence) -> None:
        """Take in who gave one of them."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayedCall:
    """One recorded call and what became of it.

    Attributes:
        tool: Ours, or the recorded name where none of ours is known.
        recorded_exit_code: What the recording tells of the command's status then, if it does.
        repeated: The broker knew this very call from before it was interrupted, and did not run it again.
    """

    index: int
    turn: int
    recorded_tool: str
    tool: str
    status: OutcomeStatus
    codes: tuple[str, ...]
    limit: str | None
    exit_code: int | None
    recorded_exit_code: int | None
    repeated: bool

    @property
    def exit_code_differs(self) -> bool | None:
        """Whether the status is another than then; None where one of them is not known."""
        if self.exit_code is None or self.recorded_exit_code is None:
            return None
        return self.exit_code != self.recorded_exit_code

    def to_json(self) -> dict[str, JsonValue]:
        """Give it as ``remit replay --json`` prints it."""
        return {
            "index": self.index,
            "turn": self.turn,
            "recorded_tool": self.recorded_tool,
            "tool": self.tool,
            "status": self.status,
            "codes": list(self.codes),
            "limit": self.limit,
            "exit_code": self.exit_code,
            "recorded_exit_code": self.recorded_exit_code,
            "exit_code_differs": self.exit_code_differs,
            "repeated": self.repeated,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """How a whole recording went."""

    format: str
    turns: int
    calls: tuple[ReplayedCall, ...]
    notes: tuple[str, ...]

    @property
    def by_status(self) -> Mapping[str, int]:
        """How many calls ended in which way."""
        return dict(Counter(call.status for call in self.calls))

    @property
    def by_code(self) -> Mapping[str, int]:
        """How many calls carry which reason code."""
        return dict(Counter(code for call in self.calls for code in call.codes))

    @property
    def differing(self) -> tuple[ReplayedCall, ...]:
        """Commands that ended with another status than when they were recorded."""
        return tuple(call for call in self.calls if call.exit_code_differs)

    def to_json(self) -> dict[str, JsonValue]:
        """Give it as ``remit replay --json`` prints it."""
        return {
            "format": self.format,
            "turns": self.turns,
            "calls": [call.to_json() for call in self.calls],
            "by_status": dict(self.by_status),
            "by_code": dict(self.by_code),
            "exit_codes_that_differ": len(self.differing),
            "notes": list(self.notes),
        }


class ReplayProgress(Protocol):
    """Told after each call; must return at once."""

    def __call__(self, *, done: int, total: int, call: ReplayedCall) -> None:
        """Take in how the last call went."""
        ...


async def replay(
    run: ReplayTarget,
    recording: Recording,
    tool_map: ToolMap,
    *,
    progress: ReplayProgress | None = None,
    parallel: bool = False,
) -> ReplayReport:
    """Put every recorded call to the run, in order, and note who made them.

    Calls of one turn are put one after the other, or all at once where ``parallel`` is set. A replay that was
    interrupted can be started again from its beginning on the resumed run: calls carry ids by which the
    broker knows what it has answered before.

    Raises:
        ExecutorError: The run takes no more calls.
        SandboxError: The machinery failed.
    """
    run.note_turns(recording.turns)
    for evidence in recording.route:
        run.note_route(evidence)
    replayer = _Replayer(run=run, tool_map=tool_map, progress=progress, total=len(recording.calls))
    for turn in _turns(recording.calls):
        await replayer.run_turn(turn, parallel=parallel)
    return ReplayReport(
        format=recording.format,
        turns=recording.turns,
        calls=replayer.finished(),
        notes=recording.notes_at(run.remit.scope.mount),
    )


class _Replayer:
    """Carries one replay through."""

    def __init__(
        self, *, run: ReplayTarget, tool_map: ToolMap, progress: ReplayProgress | None, total: int
    ) -> None:
        self._run = run
        self._tool_map = tool_map
        self._progress = progress
        self._total = total
        self._done: dict[int, ReplayedCall] = {}

    async def run_turn(self, calls: Sequence[tuple[RecordedCall, str]], *, parallel: bool) -> None:
        if not parallel or len(calls) == 1:
            for call, client_call_id in calls:
                await self._run_call(call, client_call_id)
            return
        async with anyio.create_task_group() as tasks:
            for call, client_call_id in calls:
                tasks.start_soon(self._run_call, call, client_call_id)

    def finished(self) -> tuple[ReplayedCall, ...]:
        return tuple(self._done[index] for index in sorted(self._done))

    async def _run_call(self, call: RecordedCall, client_call_id: str) -> None:
        mapped = self._tool_map.map(call)
        outcome = await self._put(mapped, client_call_id)
        replayed = _replayed(call, mapped, outcome)
        self._done[call.index] = replayed
        if self._progress is not None:
            self._progress(done=len(self._done), total=self._total, call=replayed)

    async def _put(self, mapped: MappedCall | Unmapped, client_call_id: str) -> ToolOutcome:
        if isinstance(mapped, Unmapped):
            return await self._run.deny(mapped.tool, mapped.arguments, mapped.reason)
        return await self._run.call(
            mapped.tool, mapped.arguments, client_call_id=client_call_id, source=SOURCE
        )


def _turns(calls: Sequence[RecordedCall]) -> Iterator[Sequence[tuple[RecordedCall, str]]]:
    """Group the calls by turn, each with an id that no other call of the recording has.

    Some servers number their calls anew in every answer; the broker must not take those for repetitions.
    """
    times = Counter(call.client_call_id for call in calls)
    for _, turn in groupby(calls, key=lambda call: call.turn):
        yield [(call, _client_call_id(call, times)) for call in turn]


def _client_call_id(call: RecordedCall, times: Mapping[str | None, int]) -> str:
    if call.client_call_id is None:
        return f"recorded-{call.index}"
    return call.client_call_id if times[call.client_call_id] == 1 else f"{call.client_call_id}#{call.index}"


def _replayed(call: RecordedCall, mapped: MappedCall | Unmapped, outcome: ToolOutcome) -> ReplayedCall:
    return ReplayedCall(
        index=call.index,
        turn=call.turn,
        recorded_tool=call.tool,
        tool=mapped.tool,
        status=outcome.status,
        codes=tuple(reason.code for reason in outcome.reasons),
        limit=outcome.limit,
        exit_code=outcome.exit_code,
        recorded_exit_code=call.recorded_exit_code,
        repeated=outcome.repeated,
    )

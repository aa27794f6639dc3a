"""Decide the calls of a recording without running any: would this run have stayed in bounds?

The answer holds for what is declared before a call runs. What only running shows stays unknown and is said:
what a command touches and prints, how long things take, links, growth, the checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from budgets.budget import Remaining
from budgets.call import Effects, JsonValue, ToolCall
from budgets.decide import Decision, cost_of, decide
from budgets.ledger import Ledger
from budgets.reasons import Reason
from budgets.remit import Remit
from executor.recordings import RecordedCall, Recording
from executor.recordings.tool_map import ToolMap, Unmapped
from executor.tools.registry import understand

SOURCE: Final = "dry-run"
# A run that is stopped refuses whatever is asked: that alone is no further violation.
_STOPPED: Final = "budget.violations"
_STARTED_SECONDS: Final = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DryCall:
    """One recorded call and what would have been decided.

    Attributes:
        decision: ``ask`` means that a person would have been asked; it is taken as if allowed.
        runs_command: What it touches would be known only from running it.
    """

    index: int
    turn: int
    recorded_tool: str
    tool: str
    decision: Decision
    runs_command: bool

    def to_json(self) -> dict[str, JsonValue]:
        """Give it as ``remit replay --dry-run --json`` prints it."""
        return {
            "index": self.index,
            "turn": self.turn,
            "recorded_tool": self.recorded_tool,
            "tool": self.tool,
            "action": self.decision.action,
            "reasons": [{"code": reason.code, "detail": reason.detail} for reason in self.decision.reasons],
            "runs_command": self.runs_command,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRunReport:
    """What would have been decided over a whole recording.

    Attributes:
        remaining: What is left of the budget, as far as declared costs go.
        unknowns: Sentences about what cannot be told without running.
    """

    format: str
    turns: int
    calls: tuple[DryCall, ...]
    remaining: Remaining
    unknowns: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def in_bounds(self) -> bool:
        """Whether no call would have been denied, as far as can be told."""
        return all(call.decision.action != "deny" for call in self.calls)

    @property
    def by_action(self) -> Mapping[str, int]:
        """How many calls would have been allowed, denied, asked about."""
        return dict(Counter(call.decision.action for call in self.calls))

    @property
    def by_code(self) -> Mapping[str, int]:
        """How many denials carry which reason code."""
        return dict(Counter(reason.code for call in self.calls for reason in call.decision.reasons))

    def to_json(self) -> dict[str, JsonValue]:
        """Give it as ``remit replay --dry-run --json`` prints it."""
        return {
            "format": self.format,
            "turns": self.turns,
            "in_bounds": self.in_bounds,
            "calls": [call.to_json() for call in self.calls],
            "by_action": dict(self.by_action),
            "by_code": dict(self.by_code),
            "remaining": self.remaining.to_json(),
            "unknowns": list(self.unknowns),
            "notes": list(self.notes),
        }


def dry_run(remit: Remit, recording: Recording, tool_map: ToolMap) -> DryRunReport:
    """Decide every recorded call in order against the remit, charging what each declares."""
    ledger = Ledger.open(remit.budget, started_seconds=_STARTED_SECONDS)
    calls: list[DryCall] = []
    for recorded in recording.calls:
        call, ledger = _decided(remit, ledger, recorded, tool_map)
        calls.append(call)
    return DryRunReport(
        format=recording.format,
        turns=recording.turns,
        calls=tuple(calls),
        remaining=ledger.remaining(now_seconds=_STARTED_SECONDS),
        unknowns=_unknowns(remit, calls),
        notes=recording.notes_at(remit.scope.mount),
    )


def _decided(
    remit: Remit, ledger: Ledger, recorded: RecordedCall, tool_map: ToolMap
) -> tuple[DryCall, Ledger]:
    mapped = tool_map.map(recorded)
    call = ToolCall(
        id=f"c-{recorded.index + 1:04d}", tool=mapped.tool, arguments=mapped.arguments, source=SOURCE
    )
    effects = Effects()
    if isinstance(mapped, Unmapped):
        decision = Decision(action="deny", reasons=(mapped.reason,))
    else:
        understood = understand(call)
        problems = (understood,) if isinstance(understood, Reason) else ()
        effects = Effects() if isinstance(understood, Reason) else understood.effects()
        decision = decide(remit, ledger, call, effects, now_seconds=_STARTED_SECONDS, problems=problems)
    dry_call = DryCall(
        index=recorded.index,
        turn=recorded.turn,
        recorded_tool=recorded.tool,
        tool=mapped.tool,
        decision=decision,
        runs_command=effects.runs_command,
    )
    return dry_call, _charged(ledger, call, effects, decision)


def _charged(ledger: Ledger, call: ToolCall, effects: Effects, decision: Decision) -> Ledger:
    if decision.action == "deny":
        counts = any(reason.code != _STOPPED for reason in decision.reasons)
        return ledger.note_attempt().note_violations(1 if counts else 0)
    reserved = ledger.reserve(call.id, cost_of(call, effects))
    return reserved.settle(call.id, written_bytes=effects.written_bytes, output_bytes=0).ledger


def _unknowns(remit: Remit, calls: list[DryCall]) -> tuple[str, ...]:
    found = ["how long the calls take and how much they print: wall_time and output were not counted"]
    commands = sum(call.runs_command and call.decision.action != "deny" for call in calls)
    if commands:
        found.append(
            f"what {commands} commands read, write and change: they declare no paths, so scope and growth "
            "were not decided for them"
        )
    asked = sum(call.decision.action == "ask" for call in calls)
    if asked:
        found.append(f"whether a person would have approved {asked} calls: they were taken as approved")
    if any(not call.runs_command and call.decision.action != "deny" for call in calls):
        found.append("what the files hold: links that leave the workspace, missing files, texts to replace")
    if remit.checks:
        found.append(f"whether the {len(remit.checks)} checks pass")
    return tuple(found)

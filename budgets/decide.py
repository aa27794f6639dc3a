"""Whether a call may run: every objection, in a fixed order, or none.

The order is: what the tool registry found, the scope path by path, the budget, approval. Nothing here is
remembered and nothing is charged; the caller reserves right after, without a pause between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from budgets.budget import Cost
from budgets.call import Effects, ToolCall
from budgets.contract import Remit
from budgets.ledger import Ledger
from budgets.reasons import Reason

Action = Literal["allow", "deny", "ask"]

_NO_TOOL: Final = frozenset({"tool.unknown", "tool.unmapped"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of a call; an ``allow`` has no reasons, the others have at least one."""

    action: Action
    reasons: tuple[Reason, ...]


_ALLOW: Final = Decision(action="allow", reasons=())


def decide(
    remit: Remit,
    ledger: Ledger,
    call: ToolCall,
    effects: Effects,
    *,
    now_seconds: float,
    problems: tuple[Reason, ...] = (),
) -> Decision:
    """Decide one call from what it declares; ``problems`` are what the tool registry has found wrong with it.

    A call that only lacks a person's yes is ``ask``; one that is denied anyway is not asked for.
    """
    objections = [*problems]
    if effects.paths:
        objections += _scope_objections(remit, effects)
    objections += _budget_objections(ledger, call, effects, now_seconds, problems)
    if objections:
        return Decision(action="deny", reasons=tuple(objections))
    if call.tool in remit.approve:
        reason = Reason(code="approval.required", detail=f"{call.tool} waits for approval")
        return Decision(action="ask", reasons=(reason,))
    return _ALLOW


def cost_of(call: ToolCall, effects: Effects) -> Cost:
    """Say what the call is charged before it runs."""
    return Cost(tool=call.tool, written_bytes=effects.written_bytes)


def _scope_objections(remit: Remit, effects: Effects) -> list[Reason]:
    scope = remit.scope.compiled
    found = (scope.object_to(use) for use in effects.paths)
    return list(dict.fromkeys(reason for reason in found if reason is not None))


def _budget_objections(
    ledger: Ledger, call: ToolCall, effects: Effects, now_seconds: float, problems: tuple[Reason, ...]
) -> Sequence[Reason]:
    found = ledger.objections(cost_of(call, effects), now_seconds=now_seconds)
    if not any(problem.code in _NO_TOOL for problem in problems):
        return found
    # That a tool which does not exist has no calls left says nothing more.
    return [reason for reason in found if not reason.code.startswith("budget.tools.")]

"""Enforce a remit: every tool call goes through the broker into a sandbox and into the journal.

What a library user needs stands here by name; it is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from budgets.call import ToolCall
    from budgets.reasons import Reason
    from budgets.remit import Remit, RemitInvalid, parse
    from budgets.route import RouteEvidence
    from budgets.verdict import Verdict
    from executor.approval import ApprovalAnswer, ApprovalRequest, Approver
    from executor.closing import RunResult
    from executor.errors import ExecutorError, RemitUnenforceable, RunClosed, RunNotResumable
    from executor.outcome import ToolOutcome
    from executor.run import Run, open_run
    from executor.store import RunStore

_HOMES = {
    "ApprovalAnswer": "executor.approval",
    "ApprovalRequest": "executor.approval",
    "Approver": "executor.approval",
    "ExecutorError": "executor.errors",
    "Reason": "budgets.reasons",
    "Remit": "budgets.remit",
    "RemitInvalid": "budgets.remit",
    "RemitUnenforceable": "executor.errors",
    "RouteEvidence": "budgets.route",
    "Run": "executor.run",
    "RunClosed": "executor.errors",
    "RunNotResumable": "executor.errors",
    "RunResult": "executor.closing",
    "RunStore": "executor.store",
    "ToolCall": "budgets.call",
    "ToolOutcome": "executor.outcome",
    "Verdict": "budgets.verdict",
    "open_run": "executor.run",
    "parse": "budgets.remit",
}

__all__ = [
    "ApprovalAnswer",
    "ApprovalRequest",
    "Approver",
    "ExecutorError",
    "Reason",
    "Remit",
    "RemitInvalid",
    "RemitUnenforceable",
    "RouteEvidence",
    "Run",
    "RunClosed",
    "RunNotResumable",
    "RunResult",
    "RunStore",
    "ToolCall",
    "ToolOutcome",
    "Verdict",
    "open_run",
    "parse",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'executor' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

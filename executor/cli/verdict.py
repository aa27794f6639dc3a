"""How a verdict is told, and what it makes of the exit code."""

from __future__ import annotations

from collections.abc import Iterator

from budgets.call import JsonValue
from budgets.verdict import EXIT_CODES, Verdict
from executor.cli.text import one_line, visible
from executor.closing import RunResult
from executor.store import RunDirectory

_SHOWN_LINES = 10
_SHOWN_PATHS = 5
_SHOWN_RECORDS = 8


def exit_code(verdict: Verdict) -> int:
    """Give the program's exit code for a verdict."""
    return EXIT_CODES[verdict.outcome]


def verdict_text(result: RunResult, directory: RunDirectory) -> str:
    """Tell what a run came to, in lines: the verdict, its reasons, what changed, where the evidence lies."""
    return "\n".join(
        [
            f"verdict: {result.verdict.outcome}",
            *(f"  {reason_text(each.code, each.detail, each.records)}" for each in result.verdict.reasons),
            *_failed_checks(result),
            f"changes: {_changes(result)}",
            f"run:     {result.run_id}",
            f"receipt: {result.receipt_path}",
            f"journal: {directory.journal_path}",
        ]
    )


def reason_text(code: str, detail: str, records: tuple[int, ...]) -> str:
    """Tell one reason of a verdict, with the records that it rests on."""
    told = f"{code}: {one_line(detail, limit=200)}"
    if not records:
        return told
    numbers = ", ".join(map(str, records[:_SHOWN_RECORDS]))
    more = ", …" if len(records) > _SHOWN_RECORDS else ""
    return f"{told} (record{'s' if len(records) > 1 else ''} {numbers}{more})"


def result_json(result: RunResult, directory: RunDirectory) -> dict[str, JsonValue]:
    """Give a run's result as ``--json`` prints it."""
    return {
        "run": result.run_id,
        "verdict": {
            "outcome": result.verdict.outcome,
            "reasons": [
                {"code": reason.code, "detail": reason.detail, "records": list(reason.records)}
                for reason in result.verdict.reasons
            ],
        },
        "exit_code": exit_code(result.verdict),
        "checks": [
            {"name": run.check.label, "status": run.status, "exit_code": run.exit_code, "detail": run.detail}
            for run in result.checks
        ],
        "changes": [{"path": change.path, "change": change.change} for change in result.changes.changes],
        "applied": result.applied,
        "receipt": str(result.receipt_path),
        "journal": str(directory.journal_path),
    }


def _failed_checks(result: RunResult) -> Iterator[str]:
    for run in result.checks:
        if run.status != "passed":
            yield f"check {one_line(run.check.label)}: {run.status}, {one_line(run.detail)}"
            said = run.output.decode("utf-8", "replace").rstrip().splitlines()
            yield from (f"  | {one_line(line, limit=160)}" for line in said[-_SHOWN_LINES:])


def _changes(result: RunResult) -> str:
    changes = result.changes.changes
    if not changes:
        return "none"
    paths = ", ".join(visible(change.path, keep="") for change in changes[:_SHOWN_PATHS])
    more = f" and {len(changes) - _SHOWN_PATHS} more" if len(changes) > _SHOWN_PATHS else ""
    return f"{paths}{more} ({_where(result)})"


def _where(result: RunResult) -> str:
    if result.applied:
        return "applied to the workspace"
    if result.apply_report is not None:
        return "NOT applied: the workspace is no longer what the run saw"
    return "not applied"

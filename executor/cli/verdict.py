"""How a verdict is told, and what it makes of the exit code."""

from __future__ import annotations

from collections.abc import Iterator

from budgets.call import JsonValue
from budgets.verdict import EXIT_CODES, Verdict
from executor.cli.text import one_line, visible
from executor.closing import RunResult
from executor.store import RunDirectory

_SHOWN_LINES = 10


def exit_code(verdict: Verdict) -> int:
    """Give the program's exit code for a verdict."""
    return EXIT_CODES[verdict.outcome]


def verdict_text(result: RunResult, directory: RunDirectory) -> str:
    """Tell what a run came to, in lines: the verdict, its reasons, what changed, where the evidence lies."""
    changes = result.changes.changes
    paths = ", ".join(visible(change.path, keep="") for change in changes[:5])
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    kept = "applied to the workspace" if result.applied else "not applied"
    return "\n".join(
        [
            f"verdict: {result.verdict.outcome}",
            *(
                f"  {_reason(reason.code, reason.detail, reason.records)}"
                for reason in result.verdict.reasons
            ),
            *_failed_checks(result),
            f"changes: {f'{paths}{more} ({kept})' if changes else 'none'}",
            f"run:     {result.run_id}",
            f"receipt: {result.receipt_path}",
            f"journal: {directory.journal_path}",
        ]
    )


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


def _reason(code: str, detail: str, records: tuple[int, ...]) -> str:
    where = (
        f" ({'record' if len(records) == 1 else 'records'} {', '.join(map(str, records[:8]))}"
        if records
        else ""
    )
    more = ", …" if len(records) > 8 else ""
    return f"{code}: {one_line(detail, limit=200)}{f'{where}{more})' if where else ''}"

"""What a receipt says of a run, put together from its tally and its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from budgets.ledger import Ledger
from budgets.remit import Remit, digest, to_document
from budgets.verdict import Evidence, Verdict
from executor.audit.journal import Seal
from executor.audit.receipt import build_statement
from executor.tally import Tally
from executor.version import version
from sandboxes.workspace.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A run that was judged and whose journal is sealed."""

    seal: Seal
    remit: Remit
    tally: Tally
    run_id: str
    source: str
    elapsed_seconds: float
    refused_calls: int
    ledger: Ledger
    manifest: Manifest
    evidence: Evidence
    verdict: Verdict


def statement(run: Finished) -> dict[str, Any]:
    """Build the in-toto statement of a finished run."""
    document = to_document(run.remit)
    evidence = run.evidence
    return build_statement(
        seal=run.seal,
        generator=f"remit {version()}",
        run=_run(run),
        remit={"digest": digest(run.remit), "document": document},
        sandbox=_sandbox(run),
        budget=_budget(document["budget"], run.ledger, run.elapsed_seconds),
        calls=_calls(run),
        violations=evidence.violations,
        changes={"manifest": run.manifest.digest, "files": run.manifest.changes, "growth": evidence.growth},
        checks=evidence.checks,
        route={"declared": document.get("route"), "evidence": evidence.route or ()},
        verdict=run.verdict,
    )


def _run(run: Finished) -> dict[str, Any]:
    ended = datetime.now(UTC)
    return {
        "id": run.run_id,
        "task": run.remit.task.id,
        "task_class": run.remit.task.class_,
        "source": run.source,
        "started": _stamp(ended - timedelta(seconds=run.elapsed_seconds)),
        "ended": _stamp(ended),
        "elapsed_us": round(run.elapsed_seconds * 1_000_000),
        "resumed": run.tally.resumed,
    }


def _sandbox(run: Finished) -> dict[str, Any] | None:
    if run.tally.sandbox is None:
        return None
    part = {key: value for key, value in run.tally.sandbox.items() if key != "same_as"}
    return {**part, "lifetime": run.remit.sandbox.lifetime, "opened": run.tally.sandboxes}


def _calls(run: Finished) -> dict[str, Any]:
    return {
        "decided": run.tally.decided,
        "allowed": run.tally.allowed,
        "denied": run.tally.denied,
        "ended": run.tally.ended,
        "interrupted": tuple(run.tally.interrupted),
        "refused": run.refused_calls,
    }


def _budget(declared: object, ledger: Ledger, elapsed_seconds: float) -> dict[str, Any]:
    used = ledger.used
    return {
        "declared": declared,
        "used": {
            "tools": used.tools,
            "groups": used.groups,
            "calls": used.calls,
            "attempts": ledger.attempts,
            "output": used.output_bytes,
            "written": used.written_bytes,
            "violations": ledger.violations,
            "wall_time": round(elapsed_seconds, 3),
        },
        "remaining": ledger.remaining(now_seconds=elapsed_seconds).to_json(),
    }


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

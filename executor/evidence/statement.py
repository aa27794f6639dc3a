"""What a receipt says of a run, put together from its tally and its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

from budgets.ledger import Ledger
from budgets.remit import Remit, digest, to_document
from budgets.verdict import Evidence, Verdict
from executor.audit.journal import Seal
from executor.audit.receipt import build_statement
from executor.tally import Tally
from sandboxes.workspace.manifest import Manifest


def statement(
    *,
    seal: Seal,
    remit: Remit,
    tally: Tally,
    run_id: str,
    source: str,
    elapsed_seconds: float,
    refused_calls: int,
    ledger: Ledger,
    manifest: Manifest,
    evidence: Evidence,
    verdict: Verdict,
) -> dict[str, Any]:
    """Build the in-toto statement of a finished run."""
    document = to_document(remit)
    ended = datetime.now(UTC)
    return build_statement(
        seal=seal,
        generator=f"remit {version('remit')}",
        run={
            "id": run_id,
            "task": remit.task.id,
            "task_class": remit.task.class_,
            "source": source,
            "started": _stamp(ended - timedelta(seconds=elapsed_seconds)),
            "ended": _stamp(ended),
            "elapsed_us": round(elapsed_seconds * 1_000_000),
            "resumed": tally.resumed,
        },
        remit={"digest": digest(remit), "document": document},
        sandbox=tally.sandbox,
        budget=_budget(document, ledger, elapsed_seconds),
        calls={
            "decided": tally.decided,
            "allowed": tally.allowed,
            "denied": tally.denied,
            "ended": tally.ended,
            "interrupted": tuple(tally.interrupted),
            "refused": refused_calls,
        },
        violations=evidence.violations,
        changes={
            "manifest": manifest.digest,
            "files": manifest.changes,
            "growth": evidence.growth,
        },
        checks=evidence.checks,
        route={"declared": document.get("route"), "evidence": evidence.route or ()},
        verdict=verdict,
    )


def _budget(document: Mapping[str, Any], ledger: Ledger, elapsed_seconds: float) -> dict[str, Any]:
    used = ledger.used
    return {
        "declared": document["budget"],
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

"""The end of a run: what changed, whether the checks pass, the verdict, and the signed receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, cast

from anyio import to_thread

from budgets.call import JsonValue
from budgets.ledger import Ledger
from budgets.reasons import Reason
from budgets.remit import Remit
from budgets.verdict import CheckResult, Evidence, GrowthCode, GrowthFinding, Verdict, judge
from executor import bodies, tripwire
from executor.audit.journal import Seal
from executor.audit.receipt import sign, write_receipt
from executor.audit.verify import verify_journal
from executor.checks import CheckRun, run_check
from executor.commit import commit
from executor.evidence.growth import Grown, grown
from executor.evidence.statement import Finished, statement
from executor.opening import Opened
from executor.workshop import Workshop
from sandboxes.base import Layer
from sandboxes.workspace.apply import ApplyReport
from sandboxes.workspace.changes import Change
from sandboxes.workspace.manifest import Manifest, export_changes

_LISTED_CHANGES: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What a finished run comes to.

    Attributes:
        changes: What the run left in its workspace, with the content kept in the run's directory.
        applied: Whether the changes are in the user's tree now.
        apply_report: What ``commit`` did or why it did not; None when it was not asked to do anything.
        checks: How the checks went, with their output.
    """

    run_id: str
    verdict: Verdict
    receipt_path: Path
    changes: Manifest
    applied: bool
    apply_report: ApplyReport | None
    checks: tuple[CheckRun, ...]


class Closing:
    """Ends one run, for good or to be taken up again."""

    def __init__(self, opened: Opened, *, remit: Remit, workshop: Workshop, source: str) -> None:
        self.source = source
        self._remit = remit
        self._book = opened.book
        self._workshop = workshop
        self._directory = opened.directory
        self._signer = opened.signer
        self._tripwires = opened.tripwires
        self._opened_us = opened.opened_us

    async def suspend(self) -> None:
        """Keep the changes and close the journal, so that the run can be taken up again."""
        layer = await self._workshop.close()
        manifest = await self._exported(layer)
        self._book.append("workspace.changes", self._changes_body(layer, manifest, ()))
        await self._sealed("suspended")

    async def finish(self, *, ledger: Ledger, turns: int) -> RunResult:
        """Gather the evidence, judge it, seal the journal, sign the receipt, and commit as the remit says."""
        layer = await self._workshop.close()
        manifest = await self._exported(layer)
        beyond = grown(self._remit.scope.compiled, manifest.changes)
        changes = self._book.append("workspace.changes", self._changes_body(layer, manifest, beyond))
        tripped = await self._tripped()
        ran = [
            await run_check(
                check, spec=self._workshop.spec, manifest=manifest, factory=self._workshop.factory
            )
            for check in self._remit.checks
        ]
        checks = tuple(self._noted_check(run) for run in ran)
        evidence = Evidence(
            violations=(*self._violations(), *self._book.tally.faults),
            checks=checks,
            growth=tuple(_finding(found, record=changes) for found in beyond),
            route=tuple(self._book.tally.routes) or None,
            turns=turns,
            interrupted=tuple(self._book.tally.interrupted),
            chain_intact=await self._chain_intact(),
            tripwires_changed=tuple(tripped),
            controls_missing=tuple(self._book.tally.controls_missing),
            records={
                "tripwire.changed": tuple(tripped.values()),
                "control.missing": tuple(self._book.tally.controls_missing.values()),
            },
        )
        verdict = judge(self._remit, evidence)
        self._book.append("verdict", _verdict_body(verdict))
        seal = await self._sealed("finished")
        finished = Finished(
            seal=seal,
            remit=self._remit,
            tally=self._book.tally,
            run_id=self._directory.run_id,
            source=self.source,
            elapsed_seconds=self._book.elapsed_seconds,
            refused_calls=self._book.journal.refused_calls,
            ledger=ledger,
            manifest=manifest,
            evidence=evidence,
            verdict=verdict,
        )
        await to_thread.run_sync(self._receipt_written, finished)
        report = await self._committed(verdict, manifest)
        return RunResult(
            run_id=self._directory.run_id,
            verdict=verdict,
            receipt_path=self._directory.receipt_path,
            changes=manifest,
            applied=report is not None and report.outcome != "conflict",
            apply_report=report,
            checks=tuple(ran),
        )

    async def _sealed(self, state: Literal["finished", "suspended"]) -> Seal:
        seal = await to_thread.run_sync(self._book.journal.seal, state)
        await self._book.flush()
        return seal

    def _receipt_written(self, finished: Finished) -> None:
        write_receipt(sign(statement(finished), self._signer), self._directory.receipt_path)

    async def _exported(self, layer: Layer) -> Manifest:
        manifest = await to_thread.run_sync(export_changes, layer, self._directory.changes_path)
        await to_thread.run_sync(self._workshop.clear)
        return manifest

    async def _tripped(self) -> dict[str, int]:
        changed = await to_thread.run_sync(tripwire.changed, self._tripwires)
        return {path: self._violation(Reason(code="tripwire.changed", detail=path)) for path in changed}

    def _violation(self, reason: Reason) -> int:
        return self._book.append("violation", bodies.violated(reason))

    def _violations(self) -> tuple[Any, ...]:
        # Tripwires are evidence of their own.
        return tuple(found for found in self._book.tally.violations if found.code != "tripwire.changed")

    async def _chain_intact(self) -> bool:
        found = await to_thread.run_sync(verify_journal, self._directory.journal_path)
        return found.intact

    def _noted_check(self, run: CheckRun) -> CheckResult:
        body: dict[str, JsonValue] = {
            "name": run.check.label,
            "argv": list(run.check.run),
            "status": run.status,
            "exit_code": run.exit_code,
            "detail": run.detail,
            "elapsed_us": round(run.wall_seconds * 1_000_000),
            "output": self._book.output(run.output, truncated=run.truncated),
        }
        return CheckResult(
            name=run.check.label,
            argv=run.check.run,
            status=run.status,
            exit_code=run.exit_code,
            detail=run.detail,
            record=self._book.append("check.ended", body),
        )

    def _changes_body(
        self, layer: Layer, manifest: Manifest, beyond: Sequence[Grown]
    ) -> dict[str, JsonValue]:
        changes = manifest.changes
        return {
            "strategy": layer.strategy,
            "manifest": manifest.digest,
            **{
                kind: sum(change.change == kind for change in changes)
                for kind in ("added", "modified", "deleted")
            },
            "changes": [_change(change) for change in changes[:_LISTED_CHANGES]],
            "truncated": len(changes) > _LISTED_CHANGES,
            "growth": [
                {"path": found.path, "change": found.change, "code": found.code}
                for found in beyond[:_LISTED_CHANGES]
            ],
        }

    async def _committed(self, verdict: Verdict, manifest: Manifest) -> ApplyReport | None:
        wanted = self._remit.commit
        if wanted == "never" or (wanted == "on_pass" and verdict.outcome != "pass"):
            return None
        committed = partial(commit, manifest, self._workshop.spec.workspace, opened_us=self._opened_us)
        return await to_thread.run_sync(committed)


def _finding(found: Grown, *, record: int) -> GrowthFinding:
    return GrowthFinding(
        path=found.path, change=found.change, code=cast("GrowthCode", found.code), record=record
    )


def _change(change: Change) -> dict[str, JsonValue]:
    return {
        "path": change.path,
        "change": change.change,
        "kind": change.kind,
        "mode": change.mode,
        "size": change.size,
        "sha256": change.sha256,
        "target": change.target,
        "before_sha256": change.before_sha256,
        "before_kind": change.before_kind,
        "before_mode": change.before_mode,
    }


def _verdict_body(verdict: Verdict) -> dict[str, JsonValue]:
    return {
        "outcome": verdict.outcome,
        "reasons": [
            {"code": reason.code, "detail": reason.detail, "records": list(reason.records)}
            for reason in verdict.reasons
        ],
    }

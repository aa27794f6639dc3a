"""The judgement of a run, from its evidence alone.

Each finding has an outcome of its own, and the worst one is the run's: fail, then unproven, then mixed, then
pass. Process and artifact are judged apart: a good artifact made by trying a rule is mixed, a clean process
whose checks fail is fail. Without any check a clean process passes, with ``checks.none`` to say that nobody
looked at the artifact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from budgets.contract import Remit
from budgets.route import RouteEvidence, RouteFinding, findings

Outcome = Literal["pass", "mixed", "fail", "unproven"]
CheckStatus = Literal["passed", "failed", "not_run"]
GrowthCode = Literal["growth.beyond_scope", "growth.protected"]

EXIT_CODES: Final[Mapping[Outcome, int]] = MappingProxyType({"pass": 0, "fail": 1, "mixed": 3, "unproven": 4})
EXIT_USAGE: Final = 2
EXIT_MACHINERY: Final = 5

_WORST_FIRST: Final[tuple[Outcome, ...]] = ("fail", "unproven", "mixed", "pass")
_OUTCOMES: Final[Mapping[str, Outcome]] = MappingProxyType(
    {
        "journal.broken": "fail",
        "tripwire.changed": "fail",
        "control.missing": "fail",
        "sandbox.integrity": "fail",
        "call.unaccounted": "fail",
        "route.mismatch": "fail",
        "route.fallback": "fail",
        "check.failed": "fail",
        "route.missing": "unproven",
        "check.not_run": "unproven",
        "run.interrupted": "unproven",
        "audit.unavailable": "unproven",
        "sandbox.start": "unproven",
        "sandbox.died": "unproven",
        "sandbox.unresponsive": "unproven",
        "growth.beyond_scope": "mixed",
        "growth.protected": "mixed",
        "budget.overspent": "mixed",
        "call.denied": "mixed",
        "checks.none": "pass",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """A rule that was broken or tried; ``record`` is where the journal says so."""

    code: str
    detail: str
    record: int
    call: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """How one declared check ended, as the host observed it."""

    name: str
    argv: tuple[str, ...]
    status: CheckStatus
    exit_code: int | None
    detail: str
    record: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthFinding:
    """A change of the workspace that the write scope does not cover."""

    path: str
    change: str
    code: GrowthCode
    record: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything that a verdict may rest on. What a model says of its own work is not among it.

    Attributes:
        route: None when nothing was gathered.
        turns: Turns of a model that were seen.
        interrupted: Records of calls that were allowed and have no recorded end.
        tripwires_changed: Paths.
        controls_missing: Names of controls that did not hold.
        unaccounted: What ran without a decision.
        overspends: Calls that used more than was left.
        records: Journal records behind the parts that carry none of their own, by reason code.
    """

    violations: tuple[Violation, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    growth: tuple[GrowthFinding, ...] = ()
    route: tuple[RouteEvidence, ...] | None = None
    turns: int = 0
    interrupted: tuple[int, ...] = ()
    chain_intact: bool
    tripwires_changed: tuple[str, ...] = ()
    controls_missing: tuple[str, ...] = ()
    unaccounted: tuple[str, ...] = ()
    overspends: tuple[Violation, ...] = ()
    records: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictReason:
    """One finding and the journal records that it rests on."""

    code: str
    detail: str
    records: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The outcome, with what led to it, the worst first."""

    outcome: Outcome
    reasons: tuple[VerdictReason, ...]


def judge(remit: Remit, evidence: Evidence) -> Verdict:
    """Judge a run. The same evidence always gives the same verdict."""
    reasons = [
        *_machinery(evidence),
        *_violations(evidence),
        *_route(remit, evidence),
        *_checks(remit, evidence),
        *_growth(evidence),
    ]
    ranked = sorted(reasons, key=lambda reason: _WORST_FIRST.index(_outcome(remit, reason)))
    outcome = _outcome(remit, ranked[0]) if ranked else "pass"
    return Verdict(outcome=outcome, reasons=tuple(ranked))


def _outcome(remit: Remit, reason: VerdictReason) -> Outcome:
    if reason.code.startswith("growth.") and remit.scope.growth == "refuse":
        return "fail"
    return _OUTCOMES[reason.code]


def _machinery(evidence: Evidence) -> Iterator[VerdictReason]:
    if not evidence.chain_intact:
        yield _reason(evidence, "journal.broken", "the journal was changed or cut")
    for code, names in (
        ("tripwire.changed", evidence.tripwires_changed),
        ("control.missing", evidence.controls_missing),
        ("call.unaccounted", evidence.unaccounted),
    ):
        for name in names:
            yield _reason(evidence, code, name)
    if evidence.interrupted:
        detail = f"{len(evidence.interrupted)} allowed without a recorded end"
        yield VerdictReason(code="run.interrupted", detail=detail, records=evidence.interrupted)


def _reason(evidence: Evidence, code: str, detail: str) -> VerdictReason:
    return VerdictReason(code=code, detail=detail, records=evidence.records.get(code, ()))


def _violations(evidence: Evidence) -> Iterator[VerdictReason]:
    by_code: dict[str, list[Violation]] = {}
    for violation in (*evidence.violations, *evidence.overspends):
        by_code.setdefault(violation.code, []).append(violation)
    for code, group in by_code.items():
        judged = code if code in _OUTCOMES else "call.denied"
        records = tuple(sorted({violation.record for violation in group}))
        yield VerdictReason(code=judged, detail=_told(code, group), records=records)


def _told(code: str, group: Sequence[Violation]) -> str:
    more = f", and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{code}: {group[0].detail}{more}"


def _route(remit: Remit, evidence: Evidence) -> Iterator[VerdictReason]:
    found: tuple[RouteFinding, ...] = ()
    if remit.route is not None:
        found = findings(remit.route, evidence.route or (), evidence.turns)
    for finding in found:
        yield VerdictReason(code=finding.reason.code, detail=finding.reason.detail, records=finding.records)


def _checks(remit: Remit, evidence: Evidence) -> Iterator[VerdictReason]:
    for result in evidence.checks:
        if result.status != "passed":
            code = "check.failed" if result.status == "failed" else "check.not_run"
            yield VerdictReason(code=code, detail=f"{result.name}: {result.detail}", records=(result.record,))
    unseen = Counter(check.run for check in remit.checks) - Counter(result.argv for result in evidence.checks)
    for argv in unseen.elements():
        yield VerdictReason(code="check.not_run", detail=f"{' '.join(argv)[:80]}: no result", records=())
    if not remit.checks:
        yield VerdictReason(code="checks.none", detail="the remit declares no checks", records=())


def _growth(evidence: Evidence) -> Iterator[VerdictReason]:
    for code in ("growth.protected", "growth.beyond_scope"):
        found = [finding for finding in evidence.growth if finding.code == code]
        if found:
            listed = ", ".join(f"{finding.path!a} {finding.change}" for finding in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            records = tuple(sorted({finding.record for finding in found}))
            yield VerdictReason(code=code, detail=f"{listed}{more}", records=records)

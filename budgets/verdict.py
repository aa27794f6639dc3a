"""The judgement of a run, from its evidence alone.

Each finding has an outcome of its own, and the worst one is the run's: fail, then unproven, then mixed, then
pass. Process and artifact are judged apart: a good artifact made by trying a rule is mixed, a clean process
whose checks fail is fail. Without any check a clean process passes, with ``checks.none`` to say that nobody
looked at the artifact.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from budgets.contract import Remit
from budgets.route import RouteEvidence, RouteFinding, findings
from budgets.spelling import spelled

Outcome = Literal["pass", "mixed", "fail", "unproven"]
CheckStatus = Literal["passed", "failed", "not_run"]
GrowthCode = Literal["growth.beyond_scope", "growth.protected"]

EXIT_CODES: Final[Mapping[Outcome, int]] = MappingProxyType({"pass": 0, "fail": 1, "mixed": 3, "unproven": 4})
EXIT_USAGE: Final = 2
EXIT_MACHINERY: Final = 5

_MORE: Final = re.compile(r" and (\d+) more\Z")
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
        "sandbox.engine_lost": "unproven",
        "sandbox.engine_unresponsive": "unproven",
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
    tried, seen = _parted(evidence.violations, evidence.growth)
    reasons = [
        *_machinery(evidence),
        *_violations([*tried, *evidence.overspends]),
        *_route(remit, evidence),
        *_checks(remit, evidence),
        *_growth(evidence.growth, seen),
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


def _violations(violations: Sequence[Violation]) -> Iterator[VerdictReason]:
    by_code: dict[str, list[Violation]] = {}
    for violation in violations:
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


def _growth(growth: Sequence[GrowthFinding], seen: Mapping[str, set[int]]) -> Iterator[VerdictReason]:
    for code in ("growth.protected", "growth.beyond_scope"):
        found = [finding for finding in growth if finding.code == code]
        if found:
            listed = ", ".join(f"{finding.path!a} {finding.change}" for finding in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            records = tuple(sorted({finding.record for finding in found} | seen.get(code, set())))
            yield VerdictReason(code=code, detail=f"{listed}{more}", records=records)


def _parted(
    violations: Sequence[Violation], growth: Sequence[GrowthFinding]
) -> tuple[list[Violation], dict[str, set[int]]]:
    """Take out of the violations the growth that is still there at the end; give its records by code.

    A violation lists the paths of one call in its detail, as they are spelled, and counts those it has no
    room for. The final diff tells the same paths, so only what was undone is left to be told of a violation.
    """
    left: list[Violation] = []
    seen: dict[str, set[int]] = {}
    for code in {violation.code: None for violation in violations}:
        group = [violation for violation in violations if violation.code == code]
        lasting = [spelled(finding.path) for finding in growth if finding.code == code]
        listed = [_listed(violation.detail) for violation in group]
        named = {name for names, _ in listed for name in names}
        unnamed, there = sum(name not in named for name in lasting), set(lasting)
        all_lasted = sum(more for _, more in listed) == unnamed
        for violation, (names, more) in zip(group, listed, strict=True):
            undone = [name for name in names if name not in there]
            if len(undone) < len(names) or (more and unnamed):
                seen.setdefault(code, set()).add(violation.record)
                detail = _undone(undone, 0 if all_lasted else more)
                left += [replace(violation, detail=detail)] if detail else []
            else:
                left.append(violation)
    return left, seen


def _listed(detail: str) -> tuple[list[str], int]:
    counted = _MORE.search(detail)
    return _MORE.sub("", detail).split(", "), int(counted[1]) if counted else 0


def _undone(names: Sequence[str], more: int) -> str:
    told = ", ".join(names)
    if not more:
        return told
    return f"{told} and {more} more" if told else f"some of {more} that are not listed"

"""The worst finding makes the verdict, and missing evidence is never a pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.reasons import REGISTRY
from budgets.route import RouteEvidence
from budgets.spelling import spelled
from budgets.verdict import (
    EXIT_CODES,
    EXIT_MACHINERY,
    EXIT_USAGE,
    CheckResult,
    Evidence,
    GrowthFinding,
    Violation,
    judge,
)
from tests.budgets.making import make_remit

CHECKED = make_remit(checks=[{"run": ["python3", "t.py"]}])
UNCHECKED = make_remit()
ROUTED = make_remit(route={"model": "glm-5.2"})
PASSED = CheckResult(
    name="tests", argv=("python3", "t.py"), status="passed", exit_code=0, detail="exit 0", record=9
)


def violation(code="scope.write", record=4, detail="d"):
    return Violation(code=code, detail=detail, record=record, call="c-1")


def check(status):
    return CheckResult(
        name="tests", argv=("python3", "t.py"), status=status, exit_code=1, detail=f"exit {status}", record=9
    )


def grown(code="growth.beyond_scope", path="x", record=8):
    return GrowthFinding(path=path, change="added", code=code, record=record)


def served(model="glm-5.2", *, fallback=False):
    return RouteEvidence(
        turn=0,
        tier=3,
        source="proxy",
        requested_model="glm-5.2",
        served_provider=None,
        served_model=model,
        fallback=fallback,
        record=5,
    )


def told(remit, **evidence):
    verdict = judge(remit, Evidence(**{"chain_intact": True, **evidence}))
    return verdict.outcome, [reason.code for reason in verdict.reasons]


def test_checks_that_passed_and_nothing_else_is_a_pass():
    assert told(CHECKED, checks=(PASSED,)) == ("pass", [])


def test_without_checks_a_clean_process_passes_and_says_that_nothing_was_checked():
    assert told(UNCHECKED) == ("pass", ["checks.none"])


@pytest.mark.parametrize(
    ("evidence", "outcome", "code"),
    [
        ({"chain_intact": False}, "fail", "journal.broken"),
        ({"tripwires_changed": ("~/x",)}, "fail", "tripwire.changed"),
        ({"controls_missing": ("seccomp",)}, "fail", "control.missing"),
        ({"unaccounted": ("c-9",)}, "fail", "call.unaccounted"),
        ({"checks": (check("failed"),)}, "fail", "check.failed"),
        ({"violations": (violation("sandbox.integrity"),)}, "fail", "sandbox.integrity"),
        ({"checks": (check("not_run"),)}, "unproven", "check.not_run"),
        ({"checks": ()}, "unproven", "check.not_run"),
        ({"interrupted": (3,)}, "unproven", "run.interrupted"),
        ({"violations": (violation("audit.unavailable"),)}, "unproven", "audit.unavailable"),
        ({"violations": (violation("sandbox.died"),)}, "unproven", "sandbox.died"),
        ({"violations": (violation(),)}, "mixed", "call.denied"),
        ({"violations": (violation("budget.tools.terminal"),)}, "mixed", "call.denied"),
        ({"violations": (violation("tool.unmapped"),)}, "mixed", "call.denied"),
        ({"violations": (violation("something.new"),)}, "mixed", "call.denied"),
        ({"overspends": (violation("budget.overspent"),)}, "mixed", "budget.overspent"),
        ({"growth": (grown(),)}, "mixed", "growth.beyond_scope"),
        ({"growth": (grown("growth.protected"),)}, "mixed", "growth.protected"),
    ],
)
def test_one_finding_decides(evidence, outcome, code):
    assert told(CHECKED, **{"checks": (PASSED,), **evidence}) == (outcome, [code])


@pytest.mark.parametrize(
    ("route", "outcome", "code"),
    [
        (None, "unproven", "route.missing"),
        ((), "unproven", "route.missing"),
        ((served(None),), "unproven", "route.missing"),
        ((served("other"),), "fail", "route.mismatch"),
        ((served(fallback=True),), "fail", "route.fallback"),
    ],
)
def test_a_declared_route_must_be_shown(route, outcome, code):
    found = told(ROUTED, route=route, turns=1)

    assert found == (outcome, [code, "checks.none"])


def test_a_route_that_was_shown_is_no_finding():
    assert told(ROUTED, route=(served(),), turns=1) == ("pass", ["checks.none"])


def test_without_a_declared_route_its_evidence_is_not_judged():
    assert told(UNCHECKED, route=(served("other"),), turns=1)[0] == "pass"


def test_a_check_is_told_apart_by_its_command_and_not_by_its_name():
    twice = make_remit(checks=[{"run": ["a"]}, {"run": ["a"]}])
    once = CheckResult(name="x", argv=("a",), status="passed", exit_code=0, detail="", record=1)

    assert told(twice, checks=(once,)) == ("unproven", ["check.not_run"])
    assert told(twice, checks=(once, once)) == ("pass", [])


def test_growth_is_a_failure_where_the_remit_refuses_it():
    refusing = make_remit(scope={"growth": "refuse"}, checks=[{"run": ["python3", "t.py"]}])

    assert told(refusing, checks=(PASSED,), growth=(grown(),)) == ("fail", ["growth.beyond_scope"])


def growth_told(violations, growth):
    found = judge(
        CHECKED, Evidence(chain_intact=True, checks=(PASSED,), violations=violations, growth=growth)
    )
    assert found.outcome == ("mixed" if violations or growth else "pass")
    return [(reason.code.removeprefix("growth."), reason.detail, reason.records) for reason in found.reasons]


def seen(detail, record, code="growth.beyond_scope"):
    return violation(code, record=record, detail=detail)


def test_growth_that_lasted_is_told_once_with_the_records_of_both():
    found = growth_told(
        (seen("a, b", 4), seen("c", 5), seen(".git/x", 6, "growth.protected")),
        (grown(path="a"), grown(path="b"), grown(path="c"), grown("growth.protected", path=".git/x")),
    )

    assert found == [
        ("protected", "'.git/x' added", (6, 8)),
        ("beyond_scope", "'a' added, 'b' added, 'c' added", (4, 5, 8)),
    ]


def test_growth_that_was_undone_keeps_its_violation():
    found = growth_told((seen("a, b", 4), seen("c", 5)), (grown(path="a"),))

    assert found == [
        ("beyond_scope", "growth.beyond_scope: b, and 1 more", (4, 5)),
        ("beyond_scope", "'a' added", (4, 8)),
    ]


def test_growth_of_one_code_is_not_taken_for_that_of_another():
    found = growth_told((seen("a", 4),), (grown("growth.protected", path="a"),))

    assert found == [("beyond_scope", "growth.beyond_scope: a", (4,)), ("protected", "'a' added", (8,))]


def test_all_growth_undone_is_told_as_it_was_seen():
    assert growth_told((seen("a, b and 3 more", 4),), ()) == [
        ("beyond_scope", "growth.beyond_scope: a, b and 3 more", (4,))
    ]


@pytest.mark.parametrize(
    ("paths", "left"),
    [
        ("abcd", []),
        ("abc", ["growth.beyond_scope: some of 2 that are not listed"]),
        ("bcd", ["growth.beyond_scope: a"]),
        ("bc", ["growth.beyond_scope: a and 2 more"]),
        ("cd", ["growth.beyond_scope: a, b"]),
    ],
)
def test_growth_that_a_violation_only_counts_is_matched_by_its_number(paths, left):
    found = growth_told((seen("a, b and 2 more", 4),), tuple(grown(path=path) for path in paths))

    assert [detail for _, detail, _ in found[:-1]] == left
    assert found[-1][2] == (4, 8)


def test_growth_under_an_odd_name_is_told_once():
    path = f"\x1b[31m\udcff/{'x' * 300}"

    assert len(growth_told((seen(spelled(path), 4),), (grown(path=path),))) == 1


def test_a_good_artifact_by_a_broken_rule_is_mixed():
    assert told(CHECKED, checks=(PASSED,), violations=(violation(),))[0] == "mixed"


def test_the_worst_is_told_first():
    outcome, codes = told(
        CHECKED, violations=(violation(),), growth=(grown(),), interrupted=(3,), tripwires_changed=("~/x",)
    )

    assert outcome == "fail"
    assert codes == [
        "tripwire.changed",
        "run.interrupted",
        "check.not_run",
        "call.denied",
        "growth.beyond_scope",
    ]


def test_each_reason_has_the_records_that_it_rests_on():
    verdict = judge(
        CHECKED,
        Evidence(
            chain_intact=False,
            checks=(check("failed"),),
            violations=(violation(record=4), violation(record=2), violation("scope.deny", record=6)),
            growth=tuple(grown(path=f"p{at}", record=8) for at in range(7)),
            interrupted=(11, 12),
            records={"journal.broken": (1,)},
        ),
    )

    records = [(reason.code, reason.records) for reason in verdict.reasons]
    assert records == [
        ("journal.broken", (1,)),
        ("check.failed", (9,)),
        ("run.interrupted", (11, 12)),
        ("call.denied", (2, 4)),
        ("call.denied", (6,)),
        ("growth.beyond_scope", (8,)),
    ]
    assert verdict.reasons[3].detail == "scope.write: d, and 1 more"
    assert verdict.reasons[5].detail.endswith("'p4' added and 2 more")


names = st.lists(st.sampled_from(["x", "y"]), max_size=1).map(tuple)
evidences = st.builds(
    Evidence,
    chain_intact=st.booleans(),
    checks=st.lists(st.sampled_from([PASSED, check("failed"), check("not_run")]), max_size=2).map(tuple),
    violations=st.lists(st.sampled_from([violation(), violation("sandbox.died")]), max_size=2).map(tuple),
    growth=st.lists(st.just(grown()), max_size=1).map(tuple),
    interrupted=st.lists(st.just(3), max_size=1).map(tuple),
    tripwires_changed=names,
    controls_missing=names,
    unaccounted=names,
)


@given(evidences)
def test_a_pass_means_that_nothing_was_found(evidence):
    verdict = judge(CHECKED, evidence)

    found = [
        *evidence.violations,
        *evidence.growth,
        *evidence.interrupted,
        *evidence.tripwires_changed,
        *evidence.controls_missing,
        *evidence.unaccounted,
        *(result for result in evidence.checks if result.status != "passed"),
    ]
    clean = not found and evidence.chain_intact and PASSED in evidence.checks
    assert (verdict.outcome == "pass") == clean
    assert all(reason.code in REGISTRY for reason in verdict.reasons)


@given(evidences)
def test_the_same_evidence_gives_the_same_verdict(evidence):
    assert judge(CHECKED, evidence) == judge(CHECKED, evidence)


def test_each_outcome_has_an_exit_code_of_its_own():
    codes = [*EXIT_CODES.values(), EXIT_USAGE, EXIT_MACHINERY]

    assert dict(EXIT_CODES) == {"pass": 0, "fail": 1, "mixed": 3, "unproven": 4}
    assert sorted(codes) == [0, 1, 2, 3, 4, 5]

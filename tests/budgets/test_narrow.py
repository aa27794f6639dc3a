"""A child's remit, narrowed, never grants what its parent does not."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from budgets.decide import decide
from budgets.ledger import Ledger
from budgets.remit import RemitInvalid, narrow
from tests.budgets.making import effects, make_call, make_remit, relative_paths, remits, tools


def refused(parent, child):
    with pytest.raises(RemitInvalid) as caught:
        narrow(parent, child)
    return [problem.where for problem in caught.value.problems]


def action(remit, call, touched, *, violations=0, now_seconds=0):
    ledger = Ledger.open(remit.budget, started_seconds=0.0).note_violations(violations)
    return decide(remit, ledger, call, touched, now_seconds=now_seconds).action


@settings(max_examples=150)
@given(
    remits(), remits(), st.booleans(), tools, effects, relative_paths, st.integers(0, 3), st.integers(0, 12)
)
def test_a_narrowed_remit_never_grants_more(
    parent, child, same_scope, tool, touched, path, violations, now_seconds
):
    if same_scope:
        scope = {"read": parent.scope.read, "write": parent.scope.write, "protect": child.scope.protect}
        child = child.model_copy(update={"scope": child.scope.model_copy(update=scope)})
    try:
        both = narrow(parent, child)
    except RemitInvalid:
        assume(False)
    call = make_call(tool)
    now = {"violations": violations, "now_seconds": now_seconds}

    for whole in (parent, child):
        if action(whole, call, touched, **now) == "deny":
            assert action(both, call, touched, **now) == "deny"
        if call.tool in whole.approve:
            assert action(both, call, touched, **now) != "allow"
        assert not both.scope.compiled.write_allowed(path) or whole.scope.compiled.write_allowed(path)
        assert not both.scope.compiled.readable(path) or whole.scope.compiled.readable(path)


@given(remits())
def test_a_remit_narrowed_by_itself_decides_as_before(remit):
    both = narrow(remit, remit)

    assert both.budget == remit.budget
    assert both.scope == remit.scope


@pytest.mark.parametrize(
    ("outer", "inner", "covered"),
    [
        ("**", "src/**", True),
        ("src/*", "src/a.py", True),
        ("src/*.py", "src/*", False),
        ("src", "srcs", False),
        ("**", ".git/config", False),
        (".git/**", ".git/config", True),
        (".git/config", ".git/config", True),
        ("*/x", ".env/x", True),
    ],
)
def test_a_write_glob_must_be_covered_and_may_not_lift_more_protection(outer, inner, covered):
    parent, child = make_remit(scope={"write": [outer]}), make_remit(scope={"write": [inner]})

    if covered:
        assert narrow(parent, child).scope.write == (inner,)
    else:
        assert refused(parent, child) == ["scope.write"]


def test_numbers_become_the_smaller_and_duties_those_of_both():
    parent = make_remit(
        scope={"read": ["**"], "deny": ["a"], "growth": "refuse"},
        budget={
            "tools": {"read_file": 5, "patch": 1},
            "groups": {"g": {"tools": ["patch"], "calls": 3}, "h": {"tools": ["patch"], "calls": 1}},
            "calls": 9,
        },
        sandbox={"memory": "64MiB", "lifetime": "call", "kind": "docker", "image": "base"},
        approve=["patch"],
        tripwires=["/a"],
        checks=[{"run": ["one"]}],
        commit="on_pass",
    )
    child = make_remit(
        scope={"read": ["src/**"], "deny": ["b"], "protect": ["c"]},
        budget={
            "tools": {"read_file": 9, "terminal": 2},
            "groups": {"g": {"tools": ["terminal"], "calls": 2}},
            "wall_time": "5s",
        },
        sandbox={"memory": "1GiB", "pids": 5, "kind": "docker", "runtime": "runsc"},
        approve=["terminal"],
        tripwires=["/b"],
        checks=[{"run": ["one"]}, {"run": ["two"]}],
        commit="always",
    )

    both = narrow(parent, child)

    assert both.scope.deny == ("a", "b")
    assert both.scope.protect == (*parent.scope.protect, "c")
    assert both.scope.growth == "refuse"
    assert dict(both.budget.tools) == {"read_file": 5, "terminal": 0}
    assert both.budget.groups["g"].tools == ("patch", "terminal")
    assert both.budget.groups["g"].calls == 2
    assert both.budget.groups["h"].calls == 1
    assert (both.budget.calls, both.budget.wall_time_seconds) == (9, 5.0)
    assert (both.sandbox.memory, both.sandbox.pids, both.sandbox.lifetime) == (64 * 2**20, 5, "call")
    assert (both.sandbox.image, both.sandbox.runtime) == ("base", "runsc")
    assert both.approve == ("patch", "terminal")
    assert both.tripwires == ("/a", "/b")
    assert [check.run for check in both.checks] == [("one",), ("two",)]
    assert both.commit == "on_pass"


@pytest.mark.parametrize(
    ("outer", "inner", "where"),
    [
        ({}, {"sandbox": {"kind": "docker"}}, "sandbox.kind"),
        ({}, {"scope": {"workspace": ".."}}, "scope.workspace"),
        ({}, {"scope": {"mount": "/testbed"}}, "scope.mount"),
        ({}, {"scope": {"read": ["a"]}}, "scope.read"),
        (
            {"sandbox": {"kind": "docker", "image": "a"}},
            {"sandbox": {"kind": "docker", "image": "b"}},
            "sandbox.image",
        ),
        (
            {"sandbox": {"kind": "docker", "runtime": "runc"}},
            {"sandbox": {"kind": "docker", "runtime": "runsc"}},
            "sandbox.runtime",
        ),
        ({"route": {"model": "a"}}, {"route": {"model": "b"}}, "route.model"),
        ({"route": {"provider": "a"}}, {"route": {"provider": "b"}}, "route.provider"),
    ],
)
def test_what_cannot_be_cut_to_size_is_refused(outer, inner, where):
    assert refused(make_remit(**outer), make_remit(**inner)) == [where]


def test_routes_are_joined():
    parent = make_remit(route={"provider": "zai", "fallback": "allow"})

    assert narrow(parent, make_remit(route={"model": "m"})).route.provider == "zai"
    assert narrow(parent, make_remit(route={"model": "m"})).route.model == "m"
    assert narrow(parent, make_remit(route={"model": "m"})).route.fallback == "forbid"
    assert narrow(parent, make_remit(route={"model": "m", "fallback": "allow"})).route.fallback == "allow"
    assert narrow(parent, make_remit()).route == parent.route
    assert narrow(make_remit(), parent).route == parent.route


def test_two_remits_that_cannot_hold_together_are_refused():
    parent = make_remit(
        scope={"growth": "refuse"}, budget={"tools": {"terminal": 1}}, sandbox={"lifetime": "call"}
    )
    child = make_remit(budget={"tools": {"terminal": 1}}, checks=[{"run": ["a"], "name": "n"}])
    other = make_remit(checks=[{"run": ["b"], "name": "n"}])

    assert narrow(parent, child).sandbox.lifetime == "call"
    with pytest.raises(RemitInvalid) as caught:
        narrow(other, child)
    assert str(caught.value) == "narrowed remit: checks: two checks have the name 'n'"


def numbers_of(section):
    return {name: value for name, value in section if isinstance(value, int | float)}


@pytest.mark.parametrize("section", ["sandbox", "budget"])
def test_every_number_becomes_the_smaller_whoever_has_it(section):
    much = make_remit(budget={"calls": 2}, sandbox={"cpus": 2})
    halves = {
        name: value / 2 if isinstance(value, float) else value // 2
        for name, value in numbers_of(getattr(much, section)).items()
    }
    little = much.model_copy(update={section: getattr(much, section).model_copy(update=halves)})

    for both in (narrow(much, little), narrow(little, much)):
        assert numbers_of(getattr(both, section)) == halves

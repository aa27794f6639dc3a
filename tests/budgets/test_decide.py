"""A call runs only when nothing stands against it, and less never allows more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.budget import Budget
from budgets.call import Effects
from budgets.decide import Decision, cost_of, decide
from budgets.ledger import Ledger
from budgets.reasons import Reason, lookup
from tests.budgets.making import effects, make_call, make_remit, reads, remits, tools, writes


def decision_of(remit, call, touched, *, ledger=None, now_seconds=0.0, problems=()):
    ledger = ledger or Ledger.open(remit.budget, started_seconds=0.0)
    return decide(remit, ledger, call, touched, now_seconds=now_seconds, problems=problems)


def codes(decision):
    return [reason.code for reason in decision.reasons]


def test_a_call_within_scope_and_budget_is_allowed():
    remit = make_remit(scope={"write": ["a.txt"]}, budget={"tools": {"write_file": 1}})

    assert decision_of(remit, make_call("write_file"), writes("a.txt")) == Decision(
        action="allow", reasons=()
    )


def test_a_second_write_is_denied_when_the_budget_is_one_write():
    remit = make_remit(scope={"write": ["a.txt"]}, budget={"tools": {"write_file": 1}})
    call = make_call("write_file")
    ledger = Ledger.open(remit.budget, started_seconds=0.0).reserve("c-0", cost_of(call, Effects()))

    decision = decision_of(remit, call, writes("a.txt"), ledger=ledger)

    assert (decision.action, codes(decision)) == ("deny", ["budget.tools.write_file"])


def test_all_objections_are_told_in_a_fixed_order():
    remit = make_remit(
        scope={"read": ["a"], "deny": ["d"]}, budget={"tools": {}, "calls": 0}, approve=["terminal"]
    )
    invalid = Reason(code="arguments.invalid", detail="x")

    decision = decision_of(
        remit, make_call("terminal"), reads("../x", "d", "b"), now_seconds=99999.0, problems=(invalid,)
    )

    assert decision.action == "deny"
    assert codes(decision) == [
        "arguments.invalid",
        "scope.outside",
        "scope.deny",
        "scope.read",
        "budget.tools.terminal",
        "budget.calls",
        "budget.wall_time",
    ]


def test_the_same_objection_is_told_once():
    decision = decision_of(
        make_remit(budget={"tools": {"read_file": 1}}), make_call(), reads("a", "./a", "b")
    )

    assert codes(decision) == ["scope.read", "scope.read"]


@pytest.mark.parametrize("code", ["tool.unknown", "tool.unmapped"])
def test_a_tool_that_does_not_exist_is_denied_for_that_alone(code):
    decision = decision_of(
        make_remit(), make_call("rm_rf"), Effects(), problems=(Reason(code=code, detail="x"),)
    )

    assert (decision.action, codes(decision)) == ("deny", [code])


def test_a_tool_that_nobody_has_checked_is_still_denied():
    assert decision_of(make_remit(), make_call("rm_rf"), Effects()).action == "deny"


def test_a_call_that_only_lacks_a_yes_is_asked_for():
    remit = make_remit(budget={"tools": {"terminal": 1}}, approve=["terminal"])

    decision = decision_of(remit, make_call("terminal"), Effects(runs_command=True))

    assert (decision.action, codes(decision)) == ("ask", ["approval.required"])


def test_the_cost_is_what_the_call_declares():
    cost = cost_of(make_call("write_file"), writes("a", written_bytes=7))

    assert (cost.tool, cost.written_bytes) == ("write_file", 7)


@given(remits(), tools, effects, st.floats(min_value=0, max_value=12))
def test_an_allowed_call_can_always_be_reserved_and_a_denied_one_says_why(remit, tool, touched, now_seconds):
    ledger = Ledger.open(remit.budget, started_seconds=0.0)
    call = make_call(tool)

    decision = decision_of(remit, call, touched, now_seconds=now_seconds)

    if decision.action == "allow":
        assert decision.reasons == ()
    else:
        assert decision.reasons
        assert all(lookup(reason.code) for reason in decision.reasons)
    if decision.action != "deny":
        ledger.reserve(call.id, cost_of(call, touched))


def smaller(draw, budget):
    def less(number, least=0):
        return draw(st.integers(min_value=least, max_value=number))

    return Budget(
        tools={tool: less(count) for tool, count in budget.tools.items() if draw(st.booleans())},
        groups={
            name: {"tools": list(group.tools), "calls": less(group.calls)}
            for name, group in budget.groups.items()
        },
        calls=less(4) if budget.calls is None else less(budget.calls),
        wall_time_seconds=less(int(budget.wall_time_seconds), 1),
        output_bytes=less(budget.output_bytes),
        written_bytes=less(budget.written_bytes),
        violations=less(budget.violations, 1),
    )


@given(st.data(), remits(), tools, effects, st.integers(0, 3), st.integers(0, 12))
def test_a_smaller_budget_never_allows_more(data, remit, tool, touched, violations, now_seconds):
    less = remit.model_copy(update={"budget": smaller(data.draw, remit.budget)})
    call = make_call(tool)

    allowed = {
        name: decide(
            one,
            Ledger.open(one.budget, started_seconds=0.0).note_violations(violations),
            call,
            touched,
            now_seconds=now_seconds,
        ).action
        for name, one in (("less", less), ("more", remit))
    }

    assert allowed["more"] != "deny" or allowed["less"] == "deny"


@given(remits(), tools, effects)
def test_a_problem_that_was_found_before_always_denies(remit, tool, touched):
    problem = Reason(code="arguments.invalid", detail="x")

    assert decision_of(remit, make_call(tool), touched, problems=(problem,)).action == "deny"


@settings(max_examples=20)
@given(st.permutations(range(64)))
def test_64_calls_on_a_budget_of_one_reserve_once(order):
    remit = make_remit(budget={"tools": {"terminal": 1}})
    ledger = Ledger.open(remit.budget, started_seconds=0.0)
    reserved = []

    for at in order:
        call = make_call("terminal", f"c-{at}")
        if decision_of(remit, call, Effects(), ledger=ledger).action == "allow":
            ledger = ledger.reserve(call.id, cost_of(call, Effects()))
            reserved.append(call.id)

    assert len(reserved) == 1


def test_a_decision_may_be_asked_for_from_many_threads():
    remit = make_remit(scope={"read": ["**"]}, budget={"tools": {"read_file": 1}})

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: decision_of(remit, make_call(), reads(f"a/{at}")).action, range(64)))

    assert found == ["allow"] * 64

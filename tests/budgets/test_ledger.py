"""What is settled and reserved never exceeds the budget, whatever the order."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from budgets.budget import Budget, Cost
from budgets.ledger import Ledger, LedgerError
from tests.budgets.making import budgets, tools

BUDGET = Budget(
    tools={"terminal": 3, "write_file": 2},
    groups={"changing": {"tools": ["write_file", "patch"], "calls": 1}},
    calls=4,
    wall_time_seconds=60,
    output_bytes=100,
    written_bytes=100,
    violations=2,
)
TERMINAL = Cost(tool="terminal")
WRITE = Cost(tool="write_file", written_bytes=40)


def opened(budget=BUDGET):
    return Ledger.open(budget, started_seconds=100.0)


def codes(ledger, cost, *, now_seconds=100.0):
    return [reason.code for reason in ledger.objections(cost, now_seconds=now_seconds)]


def spent(ledger, call_id, cost, *, written_bytes=0, output_bytes=0):
    return ledger.reserve(call_id, cost).settle(
        call_id, written_bytes=written_bytes, output_bytes=output_bytes
    )


class LedgerMachine(RuleBasedStateMachine):
    """Any mix of reserving, settling within what was reserved, and releasing."""

    def __init__(self):
        super().__init__()
        self.ledger = None
        self.made = 0

    @precondition(lambda self: self.ledger is None)
    @rule(budget=budgets())
    def start(self, budget):
        self.ledger = Ledger.open(budget, started_seconds=0.0)

    @precondition(lambda self: self.ledger is not None)
    @rule(tool=tools, written=st.integers(min_value=0, max_value=30))
    def reserve(self, tool, written):
        cost = Cost(tool=tool, written_bytes=written)
        self.made += 1
        refused = self.ledger.objections(cost, now_seconds=0.0)
        try:
            self.ledger = self.ledger.reserve(f"c-{self.made}", cost)
        except LedgerError:
            assert refused

    @precondition(lambda self: self.ledger is not None and self.ledger.under_way)
    @rule(data=st.data())
    def settle(self, data):
        call_id = data.draw(st.sampled_from(sorted(self.ledger.under_way)))
        most = self.ledger.under_way[call_id].written_bytes
        written = data.draw(st.integers(min_value=0, max_value=most))
        settlement = self.ledger.settle(call_id, written_bytes=written, output_bytes=0)
        assert settlement.overspends == ()
        self.ledger = settlement.ledger

    @precondition(lambda self: self.ledger is not None and self.ledger.under_way)
    @rule(data=st.data())
    def release(self, data):
        call_id = data.draw(st.sampled_from(sorted(self.ledger.under_way)))
        self.ledger = self.ledger.release(call_id)

    @invariant()
    def never_more_than_the_budget(self):
        if self.ledger is None:
            return
        budget, used, reserved = self.ledger.budget, self.ledger.used, self.ledger.reserved
        for tool in {*used.tools, *reserved.tools}:
            assert used.tools.get(tool, 0) + reserved.tools.get(tool, 0) <= budget.tools.get(tool, 0)
        for name, group in budget.groups.items():
            assert used.groups.get(name, 0) + reserved.groups.get(name, 0) <= group.calls
        assert budget.calls is None or used.calls + reserved.calls <= budget.calls
        assert used.written_bytes + reserved.written_bytes <= budget.written_bytes
        assert reserved.calls == len(self.ledger.under_way)
        left = self.ledger.remaining(now_seconds=0.0)
        assert all(count >= 0 for count in [*left.tools.values(), *left.groups.values(), left.written_bytes])


TestLedgerMachine = LedgerMachine.TestCase


@given(budgets(), tools, st.integers(min_value=0, max_value=30))
def test_a_release_restores_what_was_left(budget, tool, written):
    ledger = Ledger.open(budget, started_seconds=0.0)
    cost = Cost(tool=tool, written_bytes=written)

    if not ledger.objections(cost, now_seconds=0.0):
        assert ledger.reserve("c", cost).release("c").remaining(now_seconds=0.0) == ledger.remaining(
            now_seconds=0.0
        )


@given(st.lists(st.tuples(tools, st.integers(0, 9), st.integers(0, 9)), max_size=4))
def test_the_order_of_settling_makes_no_difference(calls):
    budget = Budget(tools=dict.fromkeys([tool for tool, _, _ in calls], 9), groups={}, written_bytes=99)
    ledger = Ledger.open(budget, started_seconds=0.0)
    for at, (tool, written, _) in enumerate(calls):
        ledger = ledger.reserve(f"c-{at}", Cost(tool=tool, written_bytes=written))

    ends = set()
    for order in permutations(range(len(calls))):
        end = ledger
        for at in order:
            end = end.settle(f"c-{at}", written_bytes=calls[at][1], output_bytes=calls[at][2]).ledger
        ends.add(str(end.remaining(now_seconds=0.0).to_json()))

    assert len(ends) == 1


def test_a_tool_that_is_not_named_has_no_calls():
    assert codes(opened(), Cost(tool="read_file")) == ["budget.tools.read_file"]


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 65, "a\x1b", "a.b"])
def test_a_name_that_a_model_invented_does_not_become_a_code(name):
    [reason] = opened().objections(Cost(tool=name), now_seconds=100.0)

    assert reason.code == "budget.tools.*"
    assert reason.detail.isprintable()


def test_every_shortage_is_an_objection_in_a_fixed_order():
    ledger = spent(opened(), "a", WRITE, written_bytes=40, output_bytes=100).ledger.note_violations(2)
    for at in range(3):
        ledger = ledger.reserve(f"t-{at}", TERMINAL)
    ledger = ledger.settle("t-0", written_bytes=60, output_bytes=0).ledger

    cost = Cost(tool="write_file", written_bytes=1)
    exhausted = Ledger.open(BUDGET.model_copy(update={"tools": {}}), started_seconds=0.0)

    assert codes(ledger, cost, now_seconds=160.0) == [
        "budget.groups.changing",
        "budget.calls",
        "budget.written",
        "budget.wall_time",
        "budget.output",
        "budget.violations",
    ]
    assert codes(exhausted, WRITE, now_seconds=0.0) == ["budget.tools.write_file"]


def test_the_last_unit_can_be_reserved_once():
    ledger = opened().reserve("a", WRITE)

    assert codes(ledger, WRITE) == ["budget.groups.changing"]
    with pytest.raises(LedgerError, match="does not fit"):
        ledger.reserve("b", WRITE)


def test_a_call_is_settled_once():
    ledger = opened().reserve("a", TERMINAL)
    settled = ledger.settle("a", written_bytes=0, output_bytes=0).ledger

    with pytest.raises(LedgerError, match="not under way"):
        settled.settle("a", written_bytes=0, output_bytes=0)
    with pytest.raises(LedgerError, match="not under way"):
        settled.release("a")
    with pytest.raises(LedgerError, match="reserved already"):
        ledger.reserve("a", TERMINAL)


@pytest.mark.parametrize(
    "numbers", [{"written_bytes": -1, "output_bytes": 0}, {"written_bytes": 0, "output_bytes": -1}]
)
def test_nothing_is_settled_with_a_negative_number(numbers):
    with pytest.raises(LedgerError, match="cannot have used"):
        opened().reserve("a", TERMINAL).settle("a", **numbers)


def test_violations_are_never_taken_back():
    with pytest.raises(LedgerError, match="never taken back"):
        opened().note_violations(-1)


def test_the_run_is_stopped_at_the_declared_violation():
    once = opened().note_violations()
    twice = once.note_violations()

    assert (once.stopped, twice.stopped) == (False, True)
    assert codes(twice, TERMINAL) == ["budget.violations"]
    assert twice.note_violations(5).remaining(now_seconds=100.0).violations == 0


def test_an_attempt_is_counted_and_costs_nothing():
    ledger = opened().note_attempt().note_attempt()

    assert ledger.attempts == 2
    assert ledger.remaining(now_seconds=100.0) == opened().remaining(now_seconds=100.0)


def test_a_command_that_wrote_more_than_was_left_is_an_overspend():
    settlement = spent(opened(), "a", TERMINAL, written_bytes=101)

    assert [reason.code for reason in settlement.overspends] == ["budget.overspent"]
    assert settlement.ledger.remaining(now_seconds=100.0).written_bytes == 0


def test_a_call_that_used_what_was_reserved_for_it_is_not_blamed_for_another():
    ledger = opened().reserve("w", WRITE).reserve("t", TERMINAL)
    over = ledger.settle("t", written_bytes=61, output_bytes=0)

    assert [reason.code for reason in over.overspends] == ["budget.overspent"]
    assert over.ledger.settle("w", written_bytes=40, output_bytes=0).overspends == ()


def test_output_beyond_the_budget_is_an_overspend():
    settlement = spent(opened(), "a", TERMINAL, output_bytes=101)

    assert [reason.code for reason in settlement.overspends] == ["budget.overspent"]
    assert codes(settlement.ledger, TERMINAL) == ["budget.output"]
    assert settlement.ledger.remaining(now_seconds=100.0).output_bytes == 0


def test_a_call_that_writes_nothing_runs_when_no_bytes_are_left():
    ledger = spent(opened(), "a", TERMINAL, written_bytes=101).ledger

    assert codes(ledger, TERMINAL) == []
    assert codes(ledger, Cost(tool="terminal", written_bytes=1)) == ["budget.written"]


@pytest.mark.parametrize("now", [160.0, 1e9, math.nan, math.inf])
def test_time_that_is_over_or_unknown_is_an_objection(now):
    assert codes(opened(), TERMINAL, now_seconds=now) == ["budget.wall_time"]


def test_a_clock_that_went_back_gives_no_more_time_than_there_was():
    assert opened().remaining(now_seconds=0.0).wall_seconds == 60.0


def test_without_a_number_for_all_calls_the_tools_own_numbers_hold():
    ledger = opened(BUDGET.model_copy(update={"calls": None}))

    assert ledger.remaining(now_seconds=100.0).calls is None
    assert codes(ledger, TERMINAL) == []


def test_what_is_left_is_told_as_plain_json():
    ledger = opened().reserve("a", WRITE)

    assert ledger.remaining(now_seconds=100.25).to_json() == {
        "tools": {"terminal": 3, "write_file": 1},
        "groups": {"changing": 0},
        "calls": 3,
        "wall_seconds": 59.75,
        "output_bytes": 100,
        "written_bytes": 60,
        "violations": 2,
    }


def test_a_ledger_keeps_nothing_of_calls_that_ended():
    ledger = opened(Budget(tools={"terminal": 1000}))
    for at in range(1000):
        ledger = spent(ledger, f"c-{at}", TERMINAL).ledger

    assert ledger.used.calls == 1000
    assert dict(ledger.under_way) == {}
    assert ledger.used.tools == {"terminal": 1000}

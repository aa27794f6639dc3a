"""Two calls in flight never take the same last unit of a budget."""

from __future__ import annotations

import anyio
import pytest

pytestmark = pytest.mark.anyio
ROUNDS, IN_FLIGHT = 1000, 64


@pytest.mark.slow
async def test_64_calls_in_flight_on_a_budget_of_one_run_exactly_once(make_broker, remit):
    contract = remit(budget={"tools": {"write_file": 1}, "violations": 1_000_000})

    for _ in range(ROUNDS):
        broker, sandbox = make_broker(contract)
        outcomes = []

        async def call(number, broker=broker, outcomes=outcomes):
            outcomes.append(await broker.call("write_file", {"path": f"{number}", "content": ""}))

        async with anyio.create_task_group() as group:
            for number in range(IN_FLIGHT):
                group.start_soon(call, number)

        assert sorted(outcome.status for outcome in outcomes) == ["denied"] * (IN_FLIGHT - 1) + ["ok"]
        assert len(sandbox.written) == 1


async def test_a_group_and_the_sum_of_calls_are_held_as_well(make_broker, remit):
    contract = remit(
        budget={
            "tools": {"write_file": 50, "read_file": 50},
            "groups": {"both": {"tools": ["write_file", "read_file"], "calls": 3}},
            "calls": 10,
        }
    )
    broker, sandbox = make_broker(contract)
    outcomes = []

    async def call(number):
        outcomes.append(await broker.call("write_file", {"path": f"{number}", "content": ""}))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(call, number)

    assert len(sandbox.written) == 3
    assert sum(outcome.status == "ok" for outcome in outcomes) == 3


async def test_written_bytes_in_flight_are_reserved(make_broker, remit):
    broker, sandbox = make_broker(remit(budget={"written": 25}))

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(broker.call, "write_file", {"path": f"{number}", "content": "x" * 10})

    assert len(sandbox.written) == 2

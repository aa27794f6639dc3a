"""Calls with a sandbox each that are given up, overtaken by the end of the run, or lose their sandbox."""

from __future__ import annotations

import anyio
import pytest

from executor.call_workshop import CallWorkshop
from tests.executor.run.calls import Failing, fates, shell

pytestmark = pytest.mark.anyio


async def test_a_call_that_is_given_up_leaves_nothing(place, fresh, codes):
    async with fresh() as run:
        await shell(run, "echo 1 > a")
        with anyio.move_on_after(0.4):
            await shell(run, "echo 2 > a; echo 2 > b; sleep 30")
        seen = await shell(run, "cat a; ls")
        result = await run.finish()

    assert seen.output == "1\na\n"
    assert [change.path for change in result.changes.changes] == ["a"]
    assert [record["body"]["status"] for record in place.records("call.ended")] == ["ok", "error", "ok"]


@pytest.mark.parametrize("step", ["ended", "keep", "_filled", "restore"])
async def test_a_call_that_is_given_up_while_its_changes_are_taken_over_leaves_nothing(
    place, fresh, monkeypatch, step
):
    """Whatever was reached when the call was given up: none of its changes are there."""
    reached = anyio.Event()

    async def cut_off(*arguments):
        reached.set()
        await anyio.sleep_forever()

    async with fresh() as run:
        await shell(run, "echo 1 > a; echo 1 > b")
        with monkeypatch.context() as patched:
            if step == "restore":
                patched.setattr("executor.workshop.restore_changes", cut_off)
            else:
                patched.setattr(CallWorkshop, step, cut_off)
            async with anyio.create_task_group() as group:
                group.start_soon(shell, run, "echo 2 > a; rm b; echo 2 > c")
                with anyio.fail_after(20):
                    await reached.wait()
                group.cancel_scope.cancel()
        seen = await shell(run, "cat a b; ls")
        result = await run.finish()

    assert seen.output == "1\n1\na\nb\n"
    assert [change.path for change in result.changes.changes] == ["a", "b"]


async def test_a_run_that_ends_under_a_call_has_none_of_its_changes(place, fresh):
    outcomes = []
    async with fresh() as run:
        await shell(run, "echo 1 > a")

        async def call():
            outcomes.append(await shell(run, "echo 2 > a; sleep 60"))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
            await anyio.sleep(0.4)
            result = await run.finish()

    assert {outcome.status for outcome in outcomes} == {"error", "denied"}
    assert [(change.path, change.size) for change in result.changes.changes] == [("a", 2)]
    assert result.verdict.outcome == "unproven"


async def test_a_run_that_ends_while_changes_are_taken_over_has_all_of_them_or_none(
    place, fresh, codes, monkeypatch
):
    reached, go, outcomes = anyio.Event(), anyio.Event(), []
    tried = CallWorkshop._tried

    async def slow(self, snapshot):
        waiting = await tried(self, snapshot)
        reached.set()
        await go.wait()
        return waiting

    async with fresh() as run:
        await shell(run, "echo 1 > a")
        monkeypatch.setattr(CallWorkshop, "_tried", slow)

        async def call():
            outcomes.append(await shell(run, "echo 22 > a; echo 2 > b"))

        async def end():
            closed = run._workshop.close

            async def close():
                layer = await closed()
                go.set()
                return layer

            monkeypatch.setattr(run._workshop, "close", close)
            outcomes.append(await run.finish())

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            with anyio.fail_after(20):
                await reached.wait()
            group.start_soon(end)

    [outcome, result] = outcomes
    assert (outcome.status, codes(outcome)) == ("error", ["sandbox.died"])
    assert [(change.path, change.size) for change in result.changes.changes] == [("a", 2)]
    assert result.verdict.outcome == "unproven"


async def test_a_sandbox_that_dies_takes_only_its_own_call_with_it(place, fresh, codes):
    async with fresh(sandbox_factory=Failing(die={3})) as run:
        await shell(run, "echo 1 > a")
        died = await shell(run, "echo 2 > a")
        after = await shell(run, "cat a")
        result = await run.finish()

    assert (died.status, codes(died)) == ("error", ["sandbox.died"])
    assert after.output == "1\n"
    assert fates(place) == ["kept", "dropped", "none"]
    assert result.verdict.outcome == "unproven"


async def test_sandboxes_that_go_on_dying_end_the_opening_of_new_ones(place, fresh, codes):
    factory = Failing(die=range(100))
    async with fresh(sandbox_factory=factory) as run:
        outcomes = [await shell(run, "true") for _ in range(10)]

    assert {codes(outcome)[0] for outcome in outcomes} == {"sandbox.died"}
    assert factory.opened == 9


async def test_a_next_sandbox_that_does_not_start_costs_the_finished_call_nothing(place, fresh, codes):
    async with fresh(sandbox_factory=Failing(start={3, 4})) as run:
        first = await shell(run, "echo 1 > a")
        second = await shell(run, "cat a")
        third = await shell(run, "cat a")
        result = await run.finish()

    assert (first.status, third.status, third.output) == ("ok", "ok", "1\n")
    assert (second.status, codes(second)) == ("error", ["sandbox.start"])
    assert [change.path for change in result.changes.changes] == ["a"]


async def test_changes_that_cannot_be_carried_over_are_refused_to_the_call_that_made_them(
    place, fresh, codes
):
    place.put("shut/a", "a")
    (place.tree / "shut").chmod(0o555)

    async with fresh() as run:
        refused = await shell(run, "chmod 755 shut; echo x > shut/new; chmod 555 shut; echo y > b")
        after = await shell(run, "ls; ls shut")
        await run.finish()

    assert (refused.status, codes(refused), refused.exit_code) == ("error", ["call.uncarried"], 0)
    assert after.output == "shut\na\n"

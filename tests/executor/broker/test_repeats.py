"""A call that is issued again under the same client call id gets its answer, and nothing runs twice."""

from __future__ import annotations

import anyio
import pytest

from sandboxes.testing import exec_result

pytestmark = pytest.mark.anyio
WRITE = ("write_file", {"path": "a", "content": "x"})


async def test_a_repeated_call_is_answered_and_not_run(place):
    async with place.run() as run:
        first = await run.call(*WRITE, client_call_id="id-1")
        second = await run.call(*WRITE, client_call_id="id-1")

        assert [call.method for call in place.sandbox.calls] == ["write_file"]
    assert second.call == first.call
    assert second.repeated
    assert second.result == first.result
    assert second.remaining.tools["write_file"] == 999
    [record] = place.records("call.repeated")
    assert record["body"]["client_call"] == "id-1"
    assert len(place.records("call.decided")) == 1


async def test_a_repeated_denial_is_one_violation(place, remit):
    async with place.run(remit(budget={"violations": 2})) as run:
        first = await run.call("read_file", {"path": "../x"}, client_call_id="id-1")
        second = await run.call("read_file", {"path": "../x"}, client_call_id="id-1")

    assert first.reasons == second.reasons
    assert second.remaining.violations == 1


async def test_the_same_id_for_another_call_is_denied(place, codes):
    async with place.run() as run:
        await run.call(*WRITE, client_call_id="id-1")
        other = await run.call("write_file", {"path": "a", "content": "y"}, client_call_id="id-1")
        same = await run.call(*WRITE, client_call_id="id-1")

        assert place.inside("a") == b"x"
    assert (other.status, codes(other)) == ("denied", ["arguments.invalid"])
    assert same.status == "ok"


async def test_a_repeat_in_flight_waits_for_the_first(place):
    outcomes = []
    async with place.run() as run:

        async def script(sandbox, request):
            await anyio.sleep(0.05)
            return exec_result(b"once\n")

        place.sandbox._script = script

        async def call():
            outcomes.append(await run.call("terminal", {"command": "x"}, client_call_id="id-1"))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(call)

        assert len(place.sandbox.calls) == 1
    assert {outcome.output for outcome in outcomes} == {"once\n"}
    assert len({outcome.call for outcome in outcomes}) == 1


async def test_a_call_that_was_given_up_is_not_run_when_it_is_issued_again(place, codes):
    async with place.run() as run:
        place.sandbox.plant("hang", on="write_file")
        with anyio.move_on_after(0.05):
            await run.call(*WRITE, client_call_id="id-1")
        again = await run.call(*WRITE, client_call_id="id-1")

        assert [call.method for call in place.sandbox.calls] == ["write_file"]
    assert (again.status, codes(again)) == ("error", ["call.cancelled"])


async def test_a_resumed_run_still_knows_its_answers(place):
    async with place.run() as run:
        first = await run.call(*WRITE, client_call_id="id-1")
        await run.call("read_file", {"path": "../x"}, client_call_id="id-2")
        name = run.id
    async with place.run(resume=name) as run:
        again = await run.call(*WRITE, client_call_id="id-1")
        denied = await run.call("read_file", {"path": "../x"}, client_call_id="id-2")

        assert place.sandbox.files is not None
        assert "write_file" not in [call.method for call in place.sandbox.calls if call.subject != "a"]
    assert again.repeated
    assert again.result == first.result
    assert again.remaining.tools["write_file"] == 999
    assert denied.status == "denied"
    assert denied.remaining.violations == 999


async def test_an_answer_that_was_lost_is_no_reason_to_run_a_call_again(place, codes):
    async with place.run() as run:
        await run.call(*WRITE, client_call_id="id-1")
        run.directory.outcomes_path.unlink()
        name = run.id
    async with place.run(resume=name) as run:
        again = await run.call(*WRITE, client_call_id="id-1")

    assert (again.status, codes(again)) == ("error", ["run.interrupted"])
    assert again.remaining.tools["write_file"] == 999

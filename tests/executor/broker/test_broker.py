"""The life of one call: decided and recorded before anything runs, ended and recorded whatever happens."""

from __future__ import annotations

import anyio
import pytest

from executor.approval import ApprovalAnswer
from sandboxes.testing import exec_result

pytestmark = pytest.mark.anyio


class Hanging:
    """A sandbox whose writes never come back."""

    def __init__(self):
        self.entered = anyio.Event()

    async def write_file(self, path, data, **options):
        self.entered.set()
        await anyio.sleep_forever()


WRITE = ("write_file", {"path": "a", "content": "x"})


async def test_a_decision_stands_in_the_journal_before_anything_runs(place):
    seen = []

    async with place.run() as run:
        place.backend.script = None

        def script(sandbox, request):
            seen.extend(record["kind"] for record in place.records())
            return exec_result()

        place.sandbox._script = script
        await run.call("terminal", {"command": "true"})

    assert "call.decided" in seen
    assert "call.ended" not in seen


async def test_a_denied_call_never_touches_the_sandbox(place, remit, codes):
    async with place.run(remit(budget={"tools": {"terminal": 0}})) as run:
        outcome = await run.call("terminal", {"command": "true"})

        assert place.sandbox.calls == []
    assert (outcome.status, codes(outcome)) == ("denied", ["budget.tools.terminal"])
    assert outcome.remaining.tools["terminal"] == 0
    [record] = place.records("call.decided")
    assert record["body"]["action"] == "deny"


async def test_an_unknown_tool_is_a_denial_with_a_hint(place, codes):
    async with place.run() as run:
        outcome = await run.call("red_file", {})

    assert codes(outcome) == ["tool.unknown"]
    assert "read_file" in outcome.reasons[0].detail


async def test_a_lone_surrogate_in_the_arguments_is_denied_and_recorded(place, codes):
    async with place.run() as run:
        written = await run.call("write_file", {"path": "a", "content": "\ud83d"})
        unknown = await run.call("read_file", {"path": "a", "\ud83d": [{"\ude00": "\ud83d"}]})

    assert codes(written) == codes(unknown) == ["arguments.invalid"]
    assert [record["body"]["action"] for record in place.records("call.decided")] == ["deny", "deny"]


async def test_every_objection_is_named(place, remit, codes):
    contract = remit(scope={"write": ["out/**"]}, budget={"tools": {}, "written": 1})

    async with place.run(contract) as run:
        outcome = await run.call("write_file", {"path": "a", "content": "xx"})

    assert codes(outcome) == ["scope.write", "budget.tools.write_file", "budget.written"]


async def test_the_third_violation_stops_the_run(place, remit, codes):
    async with place.run(remit(budget={"violations": 3})) as run:
        for _ in range(3):
            await run.call("read_file", {"path": "../x"})
        after = await run.call("list_files", {})

        assert place.sandbox.calls == []
    assert (after.status, codes(after)) == ("denied", ["budget.violations"])


async def test_a_commands_own_exit_status_is_no_error(place):
    async with place.run() as run:
        place.sandbox._script = lambda sandbox, request: exec_result(b"no\n", exit_code=7)
        outcome = await run.call("terminal", {"command": "exit 7"})

    assert (outcome.status, outcome.exit_code, outcome.output) == ("ok", 7, "no\n")
    assert not outcome.is_error


async def test_a_limit_says_which(place, codes):
    async with place.run() as run:
        place.sandbox._script = lambda sandbox, request: exec_result(b"", limit="memory")
        outcome = await run.call("terminal", {"command": "x"})

    assert (outcome.status, outcome.limit, codes(outcome)) == ("limit", "memory", ["limit.memory"])
    assert outcome.is_error


async def test_a_command_runs_no_longer_than_the_run_has_left(place, remit):
    async with place.run(remit(budget={"wall_time": "5s"})) as run:
        await run.call("terminal", {"command": "true", "timeout": 600})

        request = place.sandbox.calls[-1].subject
    assert request.timeout_seconds <= 5


async def test_output_beyond_the_budget_is_cut_at_delivery_and_is_no_limit(place, remit, codes):
    async with place.run(remit(budget={"output": 10})) as run:
        place.sandbox._script = lambda sandbox, request: exec_result("é".encode() * 20)
        cut = await run.call("terminal", {"command": "x"})
        after = await run.call("terminal", {"command": "x"})

    assert (cut.status, cut.output, cut.truncated, cut.limit) == ("ok", "é" * 5, True, None)
    assert cut.remaining.output_bytes == 0
    assert codes(after) == ["budget.output"]


async def test_using_more_than_was_left_is_a_violation(place, remit):
    async with place.run(remit(budget={"written": 5})) as run:

        def script(sandbox, request):
            from dataclasses import replace

            return replace(exec_result(), written_bytes=50)

        place.sandbox._script = script
        outcome = await run.call("terminal", {"command": "x"})
        result = await run.finish()

    assert outcome.status == "ok"
    assert [record["body"]["code"] for record in place.records("violation")] == ["budget.overspent"]
    assert result.verdict.outcome == "mixed"


@pytest.mark.parametrize(
    ("fault", "code"),
    [("die", "sandbox.died"), ("unresponsive", "sandbox.unresponsive"), ("integrity", "sandbox.integrity")],
)
async def test_a_failing_sandbox_is_an_error_that_stays_charged(place, codes, fault, code):
    async with place.run() as run:
        place.sandbox.plant(fault)
        outcome = await run.call(*WRITE)

    assert (outcome.status, codes(outcome)) == ("error", [code])
    assert outcome.remaining.tools["write_file"] == 999
    assert place.records("call.ended")[0]["body"]["settled"] == "charged"


async def test_a_sandbox_that_died_is_replaced_with_all_that_was_in_it(place):
    async with place.run() as run:
        await run.call("write_file", {"path": "deep/a", "content": "kept"})
        place.sandbox.plant("die")
        await run.call("read_file", {"path": "deep/a"})
        again = await run.call("read_file", {"path": "deep/a"})
        result = await run.finish()

    assert again.output == "1|kept\n"
    assert len(place.backend.opened) == 2
    assert len(place.records("sandbox.opened")) == 2
    assert result.verdict.outcome == "unproven"


async def test_a_sandbox_that_cannot_be_believed_stops_the_run(place, codes):
    async with place.run() as run:
        place.sandbox.plant("integrity")
        await run.call(*WRITE)
        after = await run.call(*WRITE)
        result = await run.finish()

    assert (after.status, codes(after)) == ("denied", ["run.stopped"])
    assert [record["body"]["code"] for record in place.records("violation")] == ["sandbox.integrity"]
    assert result.verdict.outcome == "fail"


async def test_a_link_that_leads_out_is_a_denial_that_costs_nothing(place, remit, codes):
    (place.tree / "out").symlink_to("/etc")
    (place.tree / "in").symlink_to("real")
    place.put("real", "x\n")

    async with place.run(remit(budget={"violations": 2})) as run:
        inside = await run.call("read_file", {"path": "in"})
        outside = await run.call("read_file", {"path": "out/passwd"})
        result = await run.finish()

    assert (inside.status, codes(inside)) == ("error", ["file.symlink"])
    assert "real" in inside.reasons[0].detail
    assert (outside.status, codes(outside)) == ("denied", ["scope.link"])
    assert outside.remaining.tools["read_file"] == 999
    assert outside.remaining.violations == 1
    assert result.verdict.outcome == "mixed"


async def test_a_cancelled_call_has_its_end_in_the_journal_and_stays_charged(make_broker, remit):
    broker, sandbox = make_broker(remit(), sandbox=Hanging())

    async with anyio.create_task_group() as group:
        group.start_soon(broker.call, *WRITE)
        await sandbox.entered.wait()
        group.cancel_scope.cancel()

    [ended] = sandbox.journal.of("call.ended")
    assert (ended["status"], ended["settled"]) == ("error", "charged")
    assert [reason["code"] for reason in ended["reasons"]] == ["call.cancelled"]
    assert broker.ledger.used.tools["write_file"] == 1
    assert not broker.ledger.under_way


async def test_without_a_journal_nothing_runs_and_the_run_is_over(make_broker, remit, codes):
    broker, sandbox = make_broker(remit())
    sandbox.journal.failing = {"call.decided"}

    first = await broker.call(*WRITE)
    sandbox.journal.failing = set()
    second = await broker.call(*WRITE)

    assert (first.status, codes(first)) == ("denied", ["audit.unavailable"])
    assert (second.status, codes(second)) == ("denied", ["audit.unavailable"])
    assert sandbox.written == {}
    assert not broker.ledger.under_way


async def test_what_cannot_be_made_durable_does_not_run(make_broker, remit, codes):
    broker, sandbox = make_broker(remit())
    sandbox.journal.flush_fails = True

    outcome = await broker.call(*WRITE)

    assert (outcome.status, codes(outcome)) == ("denied", ["audit.unavailable"])
    assert sandbox.written == {}


async def test_an_end_that_cannot_be_recorded_ends_the_run(make_broker, remit, codes):
    broker, sandbox = make_broker(remit())
    sandbox.journal.failing = {"call.ended"}

    outcome = await broker.call(*WRITE)
    after = await broker.call(*WRITE)

    assert codes(outcome) == ["audit.unavailable"]
    assert codes(after) == ["audit.unavailable"]


async def test_arguments_of_any_json_can_be_recorded(place, codes):
    arguments = {"path": "\udcff\ud800", "content": float("nan"), "n": 2**70, "x": [1.5, {"\udc80": None}]}

    async with place.run() as run:
        outcome = await run.call("wr\ud800ite", arguments, client_call_id="\ud800")
        await run.finish()

    assert codes(outcome) == ["tool.unknown"]


def approving(**changes):
    async def approve(request):
        answer = {"granted": True, "digest": request.digest, "by": "somebody", **changes}
        return ApprovalAnswer(**answer)

    return approve


async def never(request):
    await anyio.sleep_forever()


async def broken(request):
    raise ValueError("out of order")


@pytest.mark.parametrize(
    ("approver", "code"),
    [
        (None, "approval.required"),
        (approving(granted=False), "approval.refused"),
        (approving(granted="yes"), "approval.refused"),
        (approving(digest="of another call"), "approval.refused"),
        (broken, "approval.refused"),
        (never, "approval.expired"),
    ],
)
async def test_only_a_yes_to_this_very_call_lets_it_run(place, remit, codes, approver, code):
    options = {"approver": approver, "approval_timeout_seconds": 0.05}

    async with place.run(remit(approve=["terminal"]), **options) as run:
        outcome = await run.call("terminal", {"command": "true"})

        assert place.sandbox.calls == []
    assert (outcome.status, codes(outcome)) == ("denied", [code])
    assert outcome.remaining.tools["terminal"] == 1000


async def test_an_approved_call_runs_and_the_journal_says_who_approved(place, remit):
    async with place.run(remit(approve=["terminal"]), approver=approving()) as run:
        outcome = await run.call("terminal", {"command": "true"})

    assert outcome.status == "ok"
    actions = [record["body"] for record in place.records("call.decided")]
    assert [body["action"] for body in actions] == ["ask", "allow"]
    assert actions[1]["approval"]["by"] == "somebody"


async def test_a_call_that_waits_for_approval_holds_its_unit(place, remit, codes):
    asked, answer = anyio.Event(), anyio.Event()
    outcomes = []

    async def approve(request):
        asked.set()
        await answer.wait()
        return ApprovalAnswer(granted=True, digest=request.digest, by="somebody")

    contract = remit(approve=["terminal"], budget={"tools": {"terminal": 1}})
    async with place.run(contract, approver=approve) as run:

        async def call():
            outcomes.append(await run.call("terminal", {"command": "true"}))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await asked.wait()
            second = await run.call("terminal", {"command": "true"})
            answer.set()

    assert codes(second) == ["budget.tools.terminal"]
    assert [outcome.status for outcome in outcomes] == ["ok"]

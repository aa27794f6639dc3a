"""A fresh sandbox for each call, on the embedded sandbox: what goes on to the next call and what does not."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from anyio import to_thread

from executor.audit.record import parse_body
from executor.audit.verify import verify_receipt
from sandboxes.open import open_bubblewrap
from sandboxes.workspace.apply import apply_changes
from sandboxes.workspace.restore import restore_changes
from tests.executor.run.calls import REFUSING, everything, fates, shell

pytestmark = pytest.mark.anyio


async def test_all_kinds_of_change_go_on_to_the_next_call_and_are_applied_exactly(place, fresh):
    place.put("gone", "x")
    place.put("renamed", "r")
    place.put("script", "#!/bin/sh\n")
    place.put("tree/a", "a")
    place.put("tree/b", "b")
    place.put("was-file", "f")
    place.put("was-directory/x", "x")
    first = (
        "rm gone; mv renamed new-name; chmod 750 script; rm -r tree; mkdir tree; echo c > tree/c; "
        "rm was-file; mkdir -m 711 was-file; rm -r was-directory; ln -s nowhere was-directory; "
        r"mkdir 'a b'; printf x > 'a b/new'$'\n''line'; printf x > $'a b/\377'; ln -s ../x 'a b/link'; "
        "mkdir -m 555 shut; touch empty; chmod 600 empty"
    )
    look = "find . -printf '%p %y %m %l\\n' | LC_ALL=C sort | base64 -w0; cat tree/c new-name"

    async with fresh() as run:
        at_once = await shell(run, f"{first}; {look}")
        later = await shell(run, look)
        kept = await shell(run, "echo more >> tree/c; chmod 755 shut; echo in > shut/in; chmod 555 shut")
        last = await shell(run, look)
        result = await run.finish()

    assert (at_once.exit_code, kept.status) == (0, "ok")
    assert later.output == at_once.output
    assert last.output.endswith("c\nmore\nr")
    await to_thread.run_sync(partial(apply_changes, result.changes, place.tree))
    found = everything(place.tree)
    assert b"gone" not in found
    assert b"renamed" not in found
    assert b"tree/a" not in found
    assert found[b"tree/c"][1] == b"c\nmore\n"
    assert found[b"script"][0] & 0o777 == 0o750
    assert found[b"was-file"][0] & 0o777 == 0o711
    assert found[b"was-directory"][1] == "nowhere"
    assert {b"a b/new\nline", b"a b/\xff", b"a b/link", b"shut/in", b"empty"} <= found.keys()


async def test_a_call_that_undoes_an_earlier_one_leaves_no_change(place, fresh):
    place.put("a", "a\n")

    async with fresh() as run:
        await shell(run, "rm a; mkdir d")
        await shell(run, "echo a > a; rmdir d")
        result = await run.finish()

    assert result.changes.changes == ()
    assert fates(place) == ["kept", "kept"]


async def test_build_tools_see_what_is_newer(place, fresh):
    place.put("Makefile", "b: a\n\techo built; cp a b\n")
    place.put("a", "1")

    async with fresh() as run:
        built = await shell(run, "make -s 2>&1 || (test b -nt a || cp a b; echo built)")
        again = await shell(run, "test b -nt a && echo up to date")
        await run.call("write_file", {"path": "a", "content": "2"})
        stale = await shell(run, "test a -nt b && echo stale")

    assert built.exit_code == 0
    assert again.output == "up to date\n"
    assert stale.output == "stale\n"


async def test_calls_in_flight_run_in_turn_and_lose_nothing(place, contract, fresh):
    async with fresh(contract(scope={"write": ["out/**", "log"]})) as run:

        async def call(number):
            await shell(run, f"mkdir -p out; echo {number} > out/{number}; echo {number} >> log; sleep 0.02")

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(call, number)
        seen = await shell(run, "sort log | tr '\\n' ' '; ls out | wc -l")
        result = await run.finish()

    assert seen.output == "0 1 2 3 4 5 6 7 8\n"
    assert result.verdict.outcome == "pass"
    kinds = [record["kind"] for record in place.records()]
    kinds = [kind for kind in kinds if kind in {"sandbox.opened", "call.ended"}]
    # A sandbox is opened for a call only after the call before it has ended.
    assert kinds[1:19] == ["sandbox.opened", "call.ended"] * 9


async def test_a_call_whose_turn_does_not_come_in_time_is_denied(place, contract, fresh, codes):
    given = contract(budget={"wall_time": "1s"})
    outcomes = []

    async with fresh(given) as run:

        async def call():
            outcomes.append(await shell(run, "sleep 30"))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)

    assert sorted((outcome.status, codes(outcome)[0]) for outcome in outcomes) == [
        ("denied", "budget.wall_time"),
        ("limit", "limit.wall"),
    ]


async def test_a_suspended_run_goes_on_with_what_its_calls_left(place, contract, fresh):
    given = contract(scope=REFUSING)
    async with fresh(given) as run:
        await shell(run, "mkdir src; echo 1 > src/a; chmod 700 src/a")
        await shell(run, "echo x > evil")
        name, left = run.id, run.remaining
    async with fresh(given, resume=name) as run:
        resumed = run.remaining
        refused = await shell(run, "rm src/a; echo x > evil")
        seen = await shell(run, "find . | sort; stat -c %a src/a; echo 2 > src/b")
        result = await run.finish()

    assert (resumed.violations, resumed.tools) == (left.violations, left.tools)
    assert refused.status == "denied"
    assert seen.output == ".\n./src\n./src/a\n700\n"
    assert [change.path for change in result.changes.changes] == ["src", "src/a", "src/b"]
    assert result.verdict.outcome == "mixed"


async def test_a_run_that_is_left_before_any_call_can_be_taken_up(place, fresh):
    async with fresh() as run:
        name = run.id
    async with fresh(resume=name) as run:
        seen = await shell(run, "echo x > a; ls")
        result = await run.finish()

    assert seen.output == "a\n"
    assert result.verdict.outcome == "pass"


async def test_checks_see_what_all_calls_left(place, contract, fresh):
    place.put("b", "b")
    checks = [{"run": ["sh", "-c", "test $(cat src/a)$(cat src/c) = 13 && test ! -e b && test ! -e evil"]}]

    async with fresh(contract(scope={**REFUSING, "write": ["src/**", "b"]}, checks=checks)) as run:
        await shell(run, "mkdir src; echo 1 > src/a")
        await shell(run, "rm b; echo 2 > src/b")
        await shell(run, "echo x > evil")
        await shell(run, "mv src/b src/c; echo 3 > src/c")
        result = await run.finish()

    assert [check.status for check in result.checks] == ["passed"]


async def test_the_disk_limit_is_that_of_all_calls_together_holes_included(place, contract, fresh, codes):
    async with fresh(contract(sandbox={"disk": "4MiB", "file_size": "64MiB"})) as run:
        first = await shell(run, "head -c 3M /dev/zero > a")
        full = await shell(run, "head -c 3M /dev/zero > b")
        after = await shell(run, "rm -f b; ls")
        hole = await shell(run, "truncate -s 32M hole")
        last = await shell(run, "ls; stat -c %s a")
        await run.finish()

    assert first.status == "ok"
    assert full.limit == "disk" or full.exit_code != 0
    assert after.output == "a\n"
    assert (hole.status, hole.limit, codes(hole)) == ("limit", "disk", ["limit.disk"])
    assert last.output == "a\n3145728\n"


@pytest.mark.parametrize("strategy", ["overlay", "copy"])
async def test_what_lies_under_a_cover_cannot_be_moved_into_the_open(place, contract, fresh, codes, strategy):
    place.put("src/.env", "SECRET=1")
    place.put("src/a", "a")
    opened = partial(open_bubblewrap, strategy=strategy)
    scope = {"deny": ["src/.env"], "write": ["**"]}

    async with fresh(contract(scope=scope), sandbox_factory=opened) as run:
        moved = await shell(run, "mv src other; ls -A other")
        seen = await shell(run, "cat other/.env src/.env")
        result = await run.finish()

    assert "SECRET" not in moved.output + seen.output
    if strategy == "copy":
        assert (moved.status, codes(moved)) == ("denied", ["scope.deny"])
    assert all(change.kind != "file" or change.size != 8 for change in result.changes.changes)


async def test_the_journal_names_the_sandbox_of_every_call_and_what_was_seen_of_it(place, fresh):
    async with fresh() as run:
        for number in range(3):
            await shell(run, f"echo {number} > a")
        result = await run.finish()
        journal = run.directory.journal_path

    records = place.records()
    for record in records:
        parse_body(record["kind"], record["body"])
    opened = place.records("sandbox.opened")
    ended = place.records("call.ended")
    assert len(opened) == 4
    assert [one["body"]["details"]["sandbox"] for one in ended] == [one["body"]["id"] for one in opened[1:]]
    assert len({one["body"]["id"] for one in opened}) == 4
    # The first tells all, the others what differs: their namespaces.
    assert {one["body"]["same_as"] for one in opened[1:]} == {opened[0]["seq"]}
    assert all(len(one["body"]["controls"]) < len(opened[0]["body"]["controls"]) / 2 for one in opened[1:])
    receipt = await to_thread.run_sync(partial(verify_receipt, result.receipt_path, journal=journal))
    assert receipt.ok
    assert (receipt.receipt.sandbox.lifetime, receipt.receipt.sandbox.opened) == ("call", 4)
    assert len(receipt.receipt.sandbox.controls) == len(opened[0]["body"]["controls"])


async def test_written_bytes_are_what_the_call_wrote_and_not_what_was_put_in(place, contract, fresh):
    async with fresh(contract(budget={"written": "8MiB"})) as run:
        await shell(run, "head -c 1M /dev/zero > a")
        before = run.remaining.written_bytes
        await shell(run, "true")
        after = run.remaining.written_bytes

    assert after == before


async def test_a_call_costs_what_changed_and_not_what_the_tree_holds(place, fresh):
    for number in range(300):
        place.put(f"many/{number}", "x")
    restored = []

    async def counted(kept, sandbox):
        restored.append(len(kept.changes))
        await restore_changes(kept, sandbox)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("executor.workshop.restore_changes", counted)
        async with fresh() as run:
            await shell(run, "echo x > a")
            await shell(run, "echo x > b")
            await shell(run, "ls")

    assert restored == [0, 1, 2]


async def test_a_time_that_fits_nowhere_does_not_end_the_call(fresh):
    async with fresh() as run:
        touched = await run.call("terminal", {"command": "echo x > a; touch -d @10000000000 a"})
        read = await run.call("terminal", {"command": "cat a"})

    assert (touched.status, read.output) == ("ok", "x\n")

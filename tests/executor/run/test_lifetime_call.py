"""A fresh sandbox for each call, on the embedded sandbox: what goes on to the next call and what does not."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from anyio import to_thread

from executor.audit.record import parse_body
from executor.audit.verify import verify_receipt
from executor.call_workshop import CallWorkshop
from sandboxes.errors import SandboxDied, SandboxStartFailed
from sandboxes.open import open_bubblewrap, open_sandbox
from sandboxes.testing import exec_result
from sandboxes.workspace.apply import apply_changes
from sandboxes.workspace.restore import restore_changes

pytestmark = pytest.mark.anyio
REFUSING = {"write": ["src/**"], "growth": "refuse"}


@pytest.fixture
def contract(remit):
    """A remit with a sandbox for each call."""

    def made(*, sandbox=None, **sections):
        return remit(sandbox={"lifetime": "call", **(sandbox or {})}, **sections)

    return made


@pytest.fixture
def fresh(place, contract):
    def opened(given=None, **options):
        options.setdefault("sandbox_factory", open_sandbox)
        return place.run(given or contract(), **options)

    return opened


def shell(run, command, **more):
    return run.call("terminal", {"command": command, **more})


def fates(place):
    return [record["body"]["details"].get("changes") for record in place.records("call.ended")]


def everything(tree):
    """All that a tree holds, as far as changes can tell it."""
    found = {}
    for path in sorted(tree.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[os.fsencode(path.relative_to(tree))] = (path.lstat().st_mode, content)
    return found


async def test_a_growing_command_has_none_of_its_changes_kept(place, contract, fresh, codes):
    async with fresh(contract(scope=REFUSING)) as run:
        await shell(run, "mkdir src; echo kept > src/a")
        grown = await shell(run, "echo x > evil; echo x > src/b; rm src/a; echo seen; exit 3")
        after = await shell(run, "find . | sort; cat src/a")
        result = await run.finish()

    assert (grown.status, codes(grown), grown.is_error) == ("denied", ["scope.growth"], True)
    assert (grown.exit_code, grown.output) == (3, "seen\n")
    assert "evil" in grown.reasons[0].detail
    assert grown.named_result()["error"].startswith("scope.growth")
    assert after.output == ".\n./src\n./src/a\nkept\n"
    assert [change.path for change in result.changes.changes] == ["src", "src/a"]
    assert fates(place) == ["kept", "refused", "none"]
    assert place.records("call.ended")[1]["body"]["changed"] == ["evil", "src/a", "src/b"]


async def test_any_backend_can_be_used_for_it(place, contract, codes):
    """Nothing of it rests on the embedded sandbox: the fake one is a copied tree."""

    def script(sandbox, request):
        for name in request.argv[-1].split():
            (sandbox.root / name).write_text("x")
        return exec_result()

    place.backend.script = script
    async with place.run(contract(scope={"write": ["a", "b"], "growth": "refuse"})) as run:
        good = await shell(run, "a")
        grown = await shell(run, "b evil")
        seen = await run.call("list_files", {})
        result = await run.finish()

    assert (good.status, grown.status, codes(grown)) == ("ok", "denied", ["scope.growth"])
    assert seen.output == "a\n"
    assert [change.path for change in result.changes.changes] == ["a"]


async def test_refused_growth_is_a_denied_call_that_stays_charged_and_makes_the_run_mixed(
    place, contract, fresh
):
    given = contract(scope=REFUSING, checks=[{"run": ["true"]}], commit="on_pass")
    async with fresh(given) as run:
        before = run.remaining
        refused = await shell(run, "echo x > evil")
        result = await run.finish()

    assert refused.remaining.tools["terminal"] == before.tools["terminal"] - 1
    assert refused.remaining.violations == before.violations - 1
    assert result.verdict.outcome == "mixed"
    [reason] = result.verdict.reasons
    assert reason.code == "call.denied"
    assert place.records()[reason.records[0]]["body"]["reasons"][0]["code"] == "scope.growth"
    assert everything(place.tree) == {}


@pytest.mark.parametrize(
    "command",
    [
        "mkdir -p src/.git/hooks; echo x > src/.git/hooks/pre-commit",
        "echo x > src/key.pem",
        "echo x > .envrc",
        "ln -s /etc src/.vscode",
        "rm outside",
        "chmod 700 outside",
        "rm outside; mkdir outside",
        "mkfifo pipe",
        "mkdir -p elsewhere/deep",
        "rm -r old",
    ],
)
async def test_every_change_beyond_write_is_growth(place, contract, fresh, codes, command):
    place.put("outside", "o")
    place.put("old/a", "a")
    scope = {"write": ["src/**"], "deny": ["**/*.pem"], "growth": "refuse"}

    async with fresh(contract(scope=scope)) as run:
        grown = await shell(run, f"mkdir src; echo x > src/good; {command}")
        result = await run.finish()

    assert (grown.status, codes(grown)) == ("denied", ["scope.growth"]), grown
    assert result.changes.changes == ()


async def test_growth_that_is_recorded_is_kept_and_told_of_the_call_that_made_it(place, contract, fresh):
    async with fresh(contract(scope={"write": ["src/**"]})) as run:
        await shell(run, "echo x > extra")
        await shell(run, "cat extra")
        await shell(run, "echo y > extra")
        result = await run.finish()

    found = place.records("violation")
    assert [(one["body"]["code"], one["body"]["call"]) for one in found] == [
        ("growth.beyond_scope", "c-0001"),
        ("growth.beyond_scope", "c-0003"),
    ]
    assert [change.path for change in result.changes.changes] == ["extra"]
    assert result.verdict.outcome == "mixed"


async def test_file_tools_are_decided_before_they_run(place, contract, fresh, codes):
    async with fresh(contract(scope=REFUSING)) as run:
        denied = await run.call("write_file", {"path": "evil", "content": "x"})
        written = await run.call("write_file", {"path": "src/deep/a", "content": "x"})
        read = await run.call("read_file", {"path": "src/deep/a"})

    assert (denied.status, codes(denied)) == ("denied", ["scope.write"])
    assert (written.status, read.status, read.output) == ("ok", "ok", "1|x\n")
    # Nothing was opened for the call that was denied.
    assert len(place.records("sandbox.opened")) == 3


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


class Failing:
    """Opens real sandboxes, of which a chosen one does not start or dies at its first command."""

    def __init__(self, *, start=(), die=()):
        self.start, self.die, self.opened = set(start), set(die), 0

    @asynccontextmanager
    async def __call__(self, spec):
        self.opened += 1
        number = self.opened
        if number in self.start:
            raise SandboxStartFailed("told not to start")
        async with open_sandbox(spec) as sandbox:
            if number in self.die:
                sandbox.exec = self._die
            yield sandbox

    async def _die(self, request):
        raise SandboxDied("told to die")


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

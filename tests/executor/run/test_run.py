"""A run from its opening to its receipt."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
from anyio import to_thread

from budgets.route import RouteEvidence
from executor.audit.record import parse_body
from executor.audit.verify import verify_journal, verify_receipt
from executor.errors import RemitUnenforceable, RunClosed, RunNotResumable
from sandboxes.testing import exec_result
from sandboxes.workspace.diff import render_diff
from sandboxes.workspace.manifest import load_manifest

pytestmark = pytest.mark.anyio
ONE_WRITE = {"tools": {"write_file": 1}}


def snapshot(tree):
    return {
        str(path.relative_to(tree)): (path.read_bytes() if path.is_file() else None)
        for path in tree.rglob("*")
    }


def route(turn=0, model="glm-5.2", **changes):
    return RouteEvidence(
        **{
            "turn": turn,
            "tier": 3,
            "source": "test",
            "requested_model": model,
            "served_provider": "zai",
            "served_model": model,
            "fallback": False,
            **changes,
        }
    )


async def test_one_clean_write_passes(place, remit):
    async with place.run(remit(budget=ONE_WRITE, scope={"write": ["out.txt"]})) as run:
        outcome = await run.call("write_file", {"path": "out.txt", "content": "done\n"})
        result = await run.finish()

    assert outcome.status == "ok"
    assert result.verdict.outcome == "pass"
    assert not result.applied


async def test_a_forbidden_command_after_a_perfect_write_is_mixed(place, remit):
    async with place.run(remit(budget=ONE_WRITE)) as run:
        await run.call("write_file", {"path": "out.txt", "content": "done\n"})
        denied = await run.call("terminal", {"command": "true"})
        result = await run.finish()

    assert denied.status == "denied"
    assert result.verdict.outcome == "mixed"
    [reason] = [reason for reason in result.verdict.reasons if reason.code == "call.denied"]
    record = place.records()[reason.records[0]]
    assert record["body"]["tool"] == "terminal"


async def test_journal_and_receipt_hold_under_verification(place, remit):
    async with place.run(remit(budget=ONE_WRITE)) as run:
        await run.call("write_file", {"path": "out.txt", "content": "done\n"})
        result = await run.finish()
        journal = run.directory.journal_path

    receipt = await to_thread.run_sync(partial(verify_receipt, result.receipt_path, journal=journal))
    verified = await to_thread.run_sync(partial(verify_journal, journal, receipt=result.receipt_path))

    assert receipt.ok, receipt.problems
    assert verified.ok
    assert receipt.receipt.verdict.outcome == "pass"
    assert [file.path for file in receipt.receipt.changes.files] == ["out.txt"]
    assert receipt.receipt.budget.used["tools"] == {"write_file": 1}
    assert receipt.receipt.calls.allowed == 1


async def test_every_record_is_as_documented(place, remit):
    contract = remit(approve=["list_files"], checks=[{"run": ["true"]}], scope={"write": ["a"]})
    async with place.run(contract) as run:
        place.sandbox._script = lambda sandbox, request: (place.meddle("grown", "x"), exec_result())[1]
        await run.call("write_file", {"path": "a", "content": "x"}, client_call_id="1")
        await run.call("write_file", {"path": "a", "content": "x"}, client_call_id="1")
        await run.call("list_files", {})
        await run.call("terminal", {"command": "x"})
        await run.call("patch", {"path": "a", "old_string": "x", "new_string": "y"})
        await run.call("read_file", {"path": "\udcff"})
        run.note_route(route())
        await run.finish()

    kinds = set()
    for record in place.records():
        kinds.add(record["kind"])
        parse_body(record["kind"], record["body"])
    assert kinds >= {"call.repeated", "violation", "route.noted", "check.ended", "verdict", "run.closed"}


async def test_the_users_tree_is_not_touched_unless_it_is_applied(place, remit):
    place.put("a.txt", "a\n")
    place.put("gone.txt", "g\n")
    before = snapshot(place.tree)

    async with place.run(remit(commit="on_pass")) as run:
        await run.call("write_file", {"path": "a.txt", "content": "b\n"})
        await run.call("read_file", {"path": "../x"})
        result = await run.finish()

    assert result.verdict.outcome == "mixed"
    assert not result.applied
    assert snapshot(place.tree) == before


@pytest.mark.parametrize("commit", ["on_pass", "always"])
async def test_what_is_applied_is_the_diff_that_is_shown(place, remit, commit):
    place.put("a.txt", "a\n")
    lower = place.path / "as-it-was"
    shutil.copytree(place.tree, lower)

    async with place.run(remit(commit=commit)) as run:
        await run.call("write_file", {"path": "a.txt", "content": "b\n"})
        await run.call("write_file", {"path": "deep/n.txt", "content": "n\n"})
        if commit == "always":
            await run.call("read_file", {"path": "../x"})
        result = await run.finish()
        manifest = await to_thread.run_sync(load_manifest, run.directory.changes_path)
        shown = await to_thread.run_sync(render_diff, manifest, lower)

    assert result.applied
    assert snapshot(place.tree) == {"a.txt": b"b\n", "deep": None, "deep/n.txt": b"n\n"}
    assert [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-a",
        "+b",
        "+n",
    ]


async def test_a_tree_that_changed_meanwhile_is_left_as_it_is(place, remit):
    place.put("a.txt", "a\n")

    async with place.run(remit(commit="always")) as run:
        await run.call("write_file", {"path": "a.txt", "content": "b\n"})
        place.put("a.txt", "mine\n")
        result = await run.finish()

    assert not result.applied
    assert result.apply_report.conflicts
    assert snapshot(place.tree) == {"a.txt": b"mine\n"}


async def test_growth_is_found_after_the_command_and_at_the_end(place, remit):
    contract = remit(scope={"write": ["src/**"]})
    async with place.run(contract) as run:

        def script(sandbox, request):
            place.meddle("src/deep/ok.py", "x")
            place.meddle("run_tests.py", "x")
            place.meddle(".git/hooks/pre-commit", "x")
            return exec_result()

        place.sandbox._script = script
        await run.call("terminal", {"command": "x"})
        result = await run.finish()

    violations = [record["body"] for record in place.records("violation")]
    assert {(body["code"], body["detail"]) for body in violations} == {
        ("growth.beyond_scope", "run_tests.py"),
        ("growth.protected", ".git, .git/hooks, .git/hooks/pre-commit"),
    }
    [changes] = place.records("workspace.changes")
    assert {found["path"] for found in changes["body"]["growth"]} == {
        ".git",
        ".git/hooks",
        ".git/hooks/pre-commit",
        "run_tests.py",
    }
    assert result.verdict.outcome == "mixed"


async def test_the_same_growth_is_one_violation(place, remit):
    async with place.run(remit(scope={"write": []})) as run:
        place.sandbox._script = lambda sandbox, request: (place.meddle("x", "x"), exec_result())[1]
        for _ in range(3):
            await run.call("terminal", {"command": "x"})

    assert len(place.records("violation")) == 1


@pytest.mark.parametrize(
    ("ended", "status", "verdict"),
    [
        (exec_result(exit_code=0), "passed", "pass"),
        (exec_result(exit_code=1), "failed", "fail"),
        (exec_result(signal=9), "failed", "fail"),
        (exec_result(limit="memory"), "failed", "fail"),
        (exec_result(limit="wall"), "not_run", "unproven"),
    ],
)
async def test_a_check_is_judged_by_how_it_ended(place, remit, ended, status, verdict):
    place.backend.script = lambda sandbox, request: ended

    async with place.run(remit(checks=[{"run": ["python3", "check.py"]}])) as run:
        await run.call("write_file", {"path": "a", "content": "x"})
        result = await run.finish()

        check_sandbox = place.backend.opened[-1]
        assert len(place.backend.opened) == 2
        assert check_sandbox.calls[-1].method == "exec_last"
        assert (check_sandbox.root / "a").read_text() == "x"
    assert [check.status for check in result.checks] == [status]
    assert result.verdict.outcome == verdict


async def test_a_check_whose_sandbox_fails_is_not_run(place, remit):
    async with place.run(remit(checks=[{"run": ["x"]}])) as run:
        place.backend.start_fails = 1
        result = await run.finish()

    assert result.verdict.outcome == "unproven"


async def test_a_changed_tripwire_fails_the_run(place, remit, tmp_path):
    wire, missing = tmp_path / "auth.json", tmp_path / "absent"
    wire.write_text("{}")

    async with place.run(remit(tripwires=[str(wire), str(missing)])) as run:
        wire.write_text("{ }")
        result = await run.finish()

    assert result.verdict.outcome == "fail"
    [reason] = [reason for reason in result.verdict.reasons if reason.code == "tripwire.changed"]
    assert str(wire) in reason.detail
    assert place.records()[reason.records[0]]["kind"] == "violation"


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        ([], "unproven"),
        ([route()], "pass"),
        ([route(turn=1)], "unproven"),
        ([route(), route(model="other")], "fail"),
        ([route(fallback=True)], "fail"),
        ([route(tier=0)], "unproven"),
    ],
)
async def test_the_route_must_be_shown(place, remit, evidence, verdict):
    contract = remit(route={"provider": "zai", "model": "glm-5.2", "fallback": "forbid"})

    async with place.run(contract) as run:
        for piece in evidence:
            run.note_route(piece)
        result = await run.finish()

    assert result.verdict.outcome == verdict


async def test_turns_without_evidence_are_missed(place, remit):
    async with place.run(remit(route={"model": "glm-5.2", "fallback": "forbid"})) as run:
        run.note_route(route())
        run.note_turns(2)
        result = await run.finish()

    assert result.verdict.outcome == "unproven"


async def test_a_journal_that_was_changed_meanwhile_fails_the_run(place, remit):
    async with place.run() as run:
        await run.call("read_file", {"path": "../x"})
        path = run.directory.journal_path
        text = path.read_text().replace('"deny"', '"DENY"')
        path.write_text(text)
        result = await run.finish()

    assert result.verdict.outcome == "fail"
    assert "journal.broken" in [reason.code for reason in result.verdict.reasons]


async def test_a_finished_run_takes_no_more(place):
    async with place.run() as run:
        await run.finish()
        with pytest.raises(RunClosed):
            await run.call("list_files", {})
        with pytest.raises(RunClosed):
            await run.finish()


async def test_a_run_that_was_left_goes_on_where_it_was(place, remit):
    contract = remit(budget={"tools": {"write_file": 2}, "violations": 5})
    async with place.run(contract) as run:
        await run.call("write_file", {"path": "deep/a", "content": "one\n"})
        await run.call("terminal", {"command": "x"})
        name = run.id
    async with place.run(contract, resume=name) as run:
        assert place.inside("deep/a") == b"one\n"
        assert run.remaining.tools["write_file"] == 1
        assert run.remaining.violations == 4
        outcome = await run.call("write_file", {"path": "b", "content": "two\n"})
        denied = await run.call("write_file", {"path": "c", "content": "three\n"})
        result = await run.finish()

    assert outcome.call == "c-0003"
    assert denied.status == "denied"
    assert [change.path for change in result.changes.changes] == ["b", "deep", "deep/a"]
    assert result.verdict.outcome == "mixed"
    verified = await to_thread.run_sync(
        partial(verify_journal, run.directory.journal_path, receipt=result.receipt_path)
    )
    assert verified.ok


async def test_a_run_is_not_resumed_under_another_remit_nor_when_it_is_finished(place, remit):
    from executor.audit.errors import JournalClosed

    async with place.run() as run:
        name = run.id
    with pytest.raises(RunNotResumable):
        async with place.run(remit(budget={"tools": {"terminal": 5}}), resume=name):
            pass
    async with place.run(resume=name) as run:
        await run.finish()
    with pytest.raises(JournalClosed):
        async with place.run(resume=name):
            pass


async def test_kept_changes_that_somebody_altered_are_not_gone_on_with(place):
    async with place.run() as run:
        await run.call("write_file", {"path": "a", "content": "x"})
        name, changes = run.id, run.directory.changes_path
    manifest = changes / "manifest.json"
    document = json.loads(manifest.read_text())
    document["changes"] = []
    manifest.write_text(json.dumps(document))

    with pytest.raises(RunNotResumable):
        async with place.run(resume=name):
            pass


async def test_one_process_works_on_a_run_at_a_time(place):
    from executor.audit.errors import RunLocked

    async with place.run() as run:
        with pytest.raises(RunLocked):
            async with place.run(resume=run.id):
                pass


@pytest.mark.parametrize(
    "scope",
    [{"workspace": "absent"}, {"workspace": "/"}, {"workspace": "."}, {"workspace": "tree/a.txt"}],
)
async def test_a_workspace_that_is_none_is_refused_before_anything_runs(place, remit, scope):
    place.put("a.txt")

    with pytest.raises(RemitUnenforceable) as refused:
        async with place.run(remit(scope=scope)):
            pass

    assert refused.value.hint
    assert not place.backend.opened
    assert not (place.store.runs_path).exists()


async def test_what_deny_and_protect_cover_is_told_to_the_sandbox(place, remit):
    for name in (
        "src/.env",
        "src/a.py",
        "secret/deep/key",
        ".git/config",
        ".git/hooks/x",
        "lib/.git/HEAD",
        "lib/.git/config",
    ):
        place.put(name)
    (place.tree / "link.env").symlink_to("src/a.py")

    scope = {"deny": ["**/.env", "secret", "*.env"], "write": ["lib/.git/HEAD"]}
    async with place.run(remit(scope=scope)):
        spec = place.sandbox.spec

    # A cover cannot lie on a link; what it leads to has the same content.
    assert set(spec.hidden) == {"src/.env", "secret", "src/a.py"}
    # A directory in which one file may be written is covered name by name.
    assert set(spec.read_only) == {".git", "lib/.git/config"}


async def test_too_many_covers_are_refused(place, remit):
    for number in range(1025):
        place.put(f"d/{number}.key")

    with pytest.raises(RemitUnenforceable) as refused:
        async with place.run(remit(scope={"deny": ["d/*.key"]})):
            pass

    assert "1024" in str(refused.value)


async def test_a_run_whose_sandbox_cannot_be_had_leaves_nothing(place):
    from sandboxes.errors import SandboxStartFailed

    place.backend.start_fails = 1

    with pytest.raises(SandboxStartFailed):
        async with place.run():
            pass

    assert list(place.store.runs_path.iterdir()) == []

"""`growth: refuse` with a sandbox for each call: all of a command's changes are kept, or none."""

from __future__ import annotations

import pytest

from sandboxes.testing import exec_result
from tests.executor.run.calls import REFUSING, everything, fates, shell

pytestmark = pytest.mark.anyio


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

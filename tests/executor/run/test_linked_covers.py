"""Links with denied and protected names, in the embedded sandbox."""

from __future__ import annotations

import pytest

from sandboxes.open import open_sandbox

pytestmark = pytest.mark.anyio

SECRET = "TOKEN=canary"


@pytest.fixture
def real(place):
    def opened(contract):
        return place.run(contract, sandbox_factory=open_sandbox)

    return opened


@pytest.mark.parametrize("content", ["conf/real", "/workspace/conf/real", "../workspace/conf/real", "chain"])
async def test_a_denied_link_gives_its_content_under_no_name(place, real, remit, content):
    place.put("conf/real", SECRET)
    (place.tree / "chain").symlink_to("conf/../conf/real")
    (place.tree / ".env").symlink_to(content)

    async with real(remit(scope={"deny": [".env"]})) as run:
        by_link = await run.call("terminal", {"command": "cat .env"})
        by_name = await run.call("terminal", {"command": "cat conf/real; cat chain; cp conf/real x; cat x"})
        searched = await run.call("terminal", {"command": "grep -r canary . /tmp /.remit; echo done"})
        read = await run.call("read_file", {"path": "conf/real"})
        denied = await run.call("read_file", {"path": ".env"})

    assert (by_link.output, by_name.output) == ("", "")
    assert searched.output == "done\n"
    assert "canary" not in (read.output or "")
    assert denied.status == "denied"


async def test_a_denied_link_that_leads_outside_shows_nothing(place, real, remit):
    outside = place.path / "outside"
    outside.write_text(SECRET)
    (place.tree / ".env").symlink_to(outside)
    (place.tree / ".env2").symlink_to("../outside")

    async with real(remit(scope={"deny": [".env", ".env2"]})) as run:
        seen = await run.call("terminal", {"command": "cat .env .env2 2>/dev/null; echo done"})

    assert seen.output == "done\n"


async def test_a_denied_name_behind_a_linked_directory_is_hidden(place, real, remit):
    place.put("real/key", SECRET)
    (place.tree / "conf").symlink_to("real")

    async with real(remit(scope={"deny": ["conf/key"]})) as run:
        seen = await run.call("terminal", {"command": "cat conf/key real/key; echo done"})

    assert seen.output == "done\n"


async def test_a_denied_name_in_a_protected_directory_is_hidden_and_the_rest_cannot_be_written(
    place, real, remit
):
    place.put(".git/credentials", SECRET)
    place.put(".git/config", "kept")

    async with real(remit(scope={"deny": ["**/credentials"]})) as run:
        seen = await run.call("terminal", {"command": "cat .git/credentials .git/config; echo done"})
        written = await run.call("terminal", {"command": "echo x > .git/config; echo x > .git/credentials"})
        removed = await run.call("terminal", {"command": "rm -rf .git; cat .git/config"})
        result = await run.finish()

    assert seen.output == "keptdone\n"
    assert written.exit_code != 0
    assert removed.output.endswith("kept")
    assert not result.changes.changes


async def test_a_protected_link_is_not_written_through_and_its_replacement_is_growth(place, real, remit):
    place.put("scripts/hook", "honest\n")
    (place.tree / ".envrc").symlink_to("scripts/hook")

    async with real(remit()) as run:
        through = await run.call("terminal", {"command": "echo evil > .envrc"})
        by_name = await run.call("terminal", {"command": "echo evil > scripts/hook"})
        kept = await run.call("terminal", {"command": "cat .envrc"})
        await run.call("terminal", {"command": "rm .envrc; echo evil > .envrc"})
        result = await run.finish()

    assert through.exit_code != 0
    assert by_name.exit_code != 0
    assert kept.output == "honest\n"
    assert "growth.protected" in {reason.code for reason in result.verdict.reasons}

"""Runs over an engine: brokers that are killed, and a fresh container for each call."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import anyio
import pytest

from budgets.remit import to_document
from executor.run import open_run
from executor.store import RunStore
from sandboxes.docker.ownership import Owner
from sandboxes.docker.place import OWNER_FILE, places_folder
from sandboxes.open import open_docker, open_sandbox
from sandboxes.testing import fake_open

pytestmark = pytest.mark.timeout(900, func_only=True)
VICTIM = Path(__file__).with_name("victim.py")
TOOLS = {"terminal": 100_000, "write_file": 100_000}
LEFT_SECONDS = 5.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def contract(remit):
    budget = {"tools": TOOLS, "output": "1GiB", "written": "1GiB"}
    return remit(sandbox={"kind": "docker"}, budget=budget, checks=[])


@pytest.fixture
def victims(private_docker, contract, tmp_path):
    text = tmp_path / "remit.json"
    text.write_text(json.dumps(to_document(contract)))
    command = [sys.executable, str(VICTIM), str(text)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        server.stdin.close()


@pytest.mark.parametrize("rounds", [6, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_brokers_leave_nothing_after_the_next_start_and_pass_nothing(
    private_docker, victims, contract, tmp_path, rounds
):
    chance = random.Random(20261124)
    before, taken_up = None, 0
    for number in range(rounds):
        base = tmp_path / f"{rounds}-{number}"
        (base / "tree").mkdir(parents=True)
        pid = start(victims, base)
        early = number % 3 == 2
        if early:
            time.sleep(chance.uniform(0, 0.6))
        else:
            wait_for_a_decision(base)
            time.sleep(chance.uniform(0, 0.2))
            if before is not None:
                assert_nothing_of(private_docker, before)
        os.kill(pid, signal.SIGKILL)
        assert victims.stdout.readline() == "gone\n"

        assert no_receipt_passes(base)
        for journal in base.glob("state/runs/*/journal.jsonl"):
            if '"call.decided"' in journal.read_text():
                verdict = anyio.run(judged, contract, base, journal.parent.name)
                assert verdict.outcome == "unproven"
                taken_up += 1
        before = pid if not early else before

    last = tmp_path / f"{rounds}-last"
    (last / "tree").mkdir(parents=True)
    anyio.run(partial(one_call, contract, last))
    wait_until(lambda: left_at(private_docker) == ([], [], []))
    assert taken_up >= rounds // 2


@pytest.mark.anyio
@pytest.mark.parametrize("strategy", ["overlay", "copy"])
async def test_a_growing_command_has_none_of_its_changes_kept(private_docker, place, remit, codes, strategy):
    scope = {"write": ["src/**"], "growth": "refuse"}
    given = remit(sandbox={"kind": "docker", "lifetime": "call"}, scope=scope)
    async with place.run(given, sandbox_factory=partial(open_docker, strategy=strategy)) as run:
        await run.call("terminal", {"command": "mkdir src; echo kept > src/a"})
        grown = await run.call("terminal", {"command": "echo x > evil; echo x > src/b; rm src/a; exit 3"})
        after = await run.call("terminal", {"command": "find . | sort; cat src/a"})
        result = await run.finish()

    assert (grown.status, codes(grown), grown.exit_code) == ("denied", ["scope.growth"], 3)
    assert after.output == ".\n./src\n./src/a\nkept\n"
    assert [change.path for change in result.changes.changes] == ["src", "src/a"]


@pytest.mark.anyio
async def test_each_call_has_a_container_of_its_own_and_what_it_left_goes_on(private_docker, place, remit):
    place.put("a", "a\n")
    given = remit(sandbox={"kind": "docker", "lifetime": "call"}, commit="on_pass")
    async with place.run(given, sandbox_factory=open_sandbox) as run:
        await run.call("terminal", {"command": "echo more >> a; ln -s a link; mkdir -m 711 d; touch /tmp/x"})
        seen = await run.call("terminal", {"command": "cat a link; stat -c %a d; ls /tmp"})
        result = await run.finish()

    opened = {record["body"]["id"] for record in place.records("sandbox.opened")}
    assert seen.output == "a\nmore\na\nmore\n711\nhome\n"
    assert len(opened) == 3
    assert (result.verdict.outcome, (place.tree / "a").read_text()) == ("pass", "a\nmore\n")


@pytest.mark.anyio
async def test_growth_on_a_copy_is_told_of_the_call_that_made_it(private_docker, place, remit):
    given = remit(sandbox={"kind": "docker"}, scope={"write": ["src/**"]})
    async with place.run(given, sandbox_factory=partial(open_docker, strategy="copy")) as run:
        await run.call("write_file", {"path": "src/a", "content": "x"})
        await run.call("terminal", {"command": "cat src/a"})
        await run.call("terminal", {"command": "echo x > extra"})
        result = await run.finish()

    found = place.records("violation")
    assert [(one["body"]["code"], one["body"]["call"]) for one in found] == [
        ("growth.beyond_scope", "c-0003")
    ]
    assert [change.path for change in result.changes.changes] == ["extra", "src", "src/a"]
    assert result.verdict.outcome == "mixed"


def start(victims, base):
    victims.stdin.write(f"{base} victim\n")
    victims.stdin.flush()
    return int(victims.stdout.readline())


async def judged(contract, base, name):
    store = RunStore(base / "state")
    async with open_run(contract, base=base, store=store, resume=name, sandbox_factory=fake_open) as run:
        result = await run.finish()
    return result.verdict


async def one_call(contract, base):
    async with open_run(contract, base=base, store=RunStore(base / "state")) as run:
        await run.call("terminal", {"command": "true"})
        await run.finish()


def wait_for_a_decision(base):
    found = base.glob
    wait_until(
        lambda: any('"call.decided"' in path.read_text() for path in found("state/runs/*/journal.jsonl")),
        seconds=30,
    )


def no_receipt_passes(base):
    return not list(base.glob("state/runs/*/receipt*"))


def assert_nothing_of(engine, pid):
    wait_until(lambda: left_at(engine, pid) == ([], [], []))


def left_at(engine, pid=None):
    """Give the containers, volumes and directories that belong to one broker, or to any that is dead."""
    template = '{{.Label "remit.owner"}}'
    containers = engine.ask("ps", "-a", "--format", template).stdout.splitlines()
    volumes = engine.ask("volume", "ls", "--format", template).stdout.splitlines()
    folders = [owner_file(place) for place in Path(places_folder()).iterdir()]
    return tuple([text for text in texts if is_of(text, pid)] for texts in (containers, volumes, folders))


def owner_file(place):
    try:
        return (place / OWNER_FILE).read_text()
    except OSError:
        return ""


def is_of(text, pid):
    owner = Owner.parse(text)
    return owner is not None and (owner.is_gone() if pid is None else owner.pid == pid)


def wait_until(holds, *, seconds=LEFT_SECONDS):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.02)

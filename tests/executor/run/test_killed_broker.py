"""A broker that is killed refunds nothing, passes nothing and leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from executor.run import open_run
from executor.store import RunStore
from sandboxes.testing import fake_open

ROUNDS = 50
TOOLS = {"terminal": 100_000, "write_file": 100_000}
VICTIM = Path(__file__).with_name("victim.py")


@pytest.fixture
def contract(remit):
    return remit(budget={"tools": TOOLS, "output": "1GiB", "written": "1GiB"}, checks=[])


@pytest.fixture
def victims(contract, tmp_path):
    from budgets.remit import to_document

    text = tmp_path / "remit.json"
    text.write_text(json.dumps(to_document(contract)))
    command = [sys.executable, str(VICTIM), str(text)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        server.stdin.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_broker_refunds_nothing_passes_nothing_and_leaves_nothing(victims, contract, tmp_path):
    chance = random.Random(20261122)
    open_at_the_end = 0
    for number in range(ROUNDS):
        base = tmp_path / f"round-{number}"
        (base / "tree").mkdir(parents=True)
        marker = f"victim-{os.getpid()}-{number}"
        victims.stdin.write(f"{base} {marker}\n")
        victims.stdin.flush()
        pid = int(victims.stdout.readline())
        journal = journal_with_a_decision(base)
        time.sleep(chance.uniform(0, 0.06))

        family = descendants(pid)
        os.kill(pid, signal.SIGKILL)
        assert victims.stdout.readline() == "gone\n"

        assert_gone(family, marker, seconds=5)
        records = [
            json.loads(line) for line in journal.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]
        allowed = [record["body"] for record in records if is_allowed(record)]
        ended = {record["body"]["call"] for record in records if record["kind"] == "call.ended"}
        open_at_the_end += any(body["call"] not in ended for body in allowed)
        remaining, verdict = anyio.run(taken_up, contract, base, journal.parent.name)
        for tool, granted in TOOLS.items():
            spent = sum(body["tool"] == tool for body in allowed)
            assert remaining[tool] == granted - spent
        assert verdict.outcome == "unproven"
        assert "run.interrupted" in [reason.code for reason in verdict.reasons]
    assert open_at_the_end > ROUNDS // 2


async def taken_up(contract, base, name):
    store = RunStore(base / "state")
    async with open_run(contract, base=base, store=store, resume=name, sandbox_factory=fake_open) as run:
        remaining = dict(run.remaining.tools)
        result = await run.finish()
    return remaining, result.verdict


def journal_with_a_decision(base):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for journal in base.glob("state/runs/*/journal.jsonl"):
            if '"call.decided"' in journal.read_text():
                return journal
        time.sleep(0.002)
    raise AssertionError("the broker did not come up")


def is_allowed(record):
    return record["kind"] == "call.decided" and record["body"]["action"] == "allow"


def descendants(pid):
    """Every process below, with its start time, which tells it from a later one of the same number."""
    children = {}
    started = {}
    for entry in Path("/proc").iterdir():
        stat = status_of(entry)
        if stat is not None:
            children.setdefault(stat[1], []).append(stat[0])
            started[stat[0]] = stat[2]
    found, waiting = set(), [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.add((child, started[child]))
            waiting.append(child)
    return found


def status_of(entry):
    if not entry.name.isdigit():
        return None
    try:
        text = (entry / "stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return int(entry.name), int(fields[1]), int(fields[19])


def assert_gone(family, marker, *, seconds):
    deadline = time.monotonic() + seconds
    while left := survivors(family, marker):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def survivors(family, marker):
    left = []
    for entry in Path("/proc").iterdir():
        stat = status_of(entry)
        if stat is None:
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            state = (entry / "status").read_text().split("State:\t")[1][0]
        except (OSError, IndexError):
            continue
        if state != "Z" and ((stat[0], stat[2]) in family or marker.encode() in words):
            left.append((stat[0], words[:100]))
    return left

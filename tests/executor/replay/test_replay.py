"""Every recorded call is put to the run, in order; what cannot be put is denied there, never skipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from budgets.budget import Budget
from budgets.ledger import Ledger
from budgets.remit import parse
from executor.outcome import ToolOutcome
from executor.recordings import load_recording
from executor.recordings.tool_map import tool_map_for
from executor.replay import replay

FIXTURES = Path(__file__).parents[2] / "fixtures" / "recordings"
# Read before any event loop runs: reading blocks.
RECORDINGS = {path.name: load_recording(path) for path in FIXTURES.iterdir()}

REMIT = """
version: 1
task: {id: list, class: test}
scope: {workspace: ., mount: /home/u/app}
"""

pytestmark = pytest.mark.anyio


class FakeRun:
    """Keeps what it was asked, and answers with the exit codes it was given."""

    def __init__(self, exit_codes=()):
        self.remit = parse(REMIT, source="test.yaml")
        self.asked = []
        self.route = []
        self.turns = 0
        self.most_at_once = 0
        self._at_once = 0
        self._exit_codes = list(exit_codes)

    async def call(self, tool, arguments, *, client_call_id=None, source=None):
        self.asked.append(("call", tool, dict(arguments), client_call_id, source))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await anyio.lowlevel.checkpoint()
        self._at_once -= 1
        exit_code = self._exit_codes.pop(0) if tool == "terminal" and self._exit_codes else None
        return outcome("ok", exit_code=exit_code)

    async def deny(self, tool, arguments, reason):
        self.asked.append(("deny", tool, dict(arguments), reason.code))
        return outcome("denied", (reason,))

    def note_turns(self, turns):
        self.turns = turns

    def note_route(self, evidence):
        self.route.append(evidence)


def outcome(status, reasons=(), exit_code=None):
    remaining = Ledger.open(Budget(), started_seconds=0).remaining(now_seconds=0)
    return ToolOutcome(
        call="c-1",
        status=status,
        reasons=reasons,
        limit=None,
        exit_code=exit_code,
        output="",
        truncated=False,
        remaining=remaining,
    )


def load(name):
    recording = RECORDINGS[name]
    return recording, tool_map_for(recording.format)


async def test_calls_are_put_in_recorded_order_with_their_ids():
    run = FakeRun(exit_codes=[0])

    report = await replay(run, *load("openai-chat.json"))

    assert [(each[1], each[3], each[4]) for each in run.asked] == [
        ("write_file", "call_1", "replay"),
        ("read_file", "call_2", "replay"),
        ("terminal", "call_3", "replay"),
    ]
    assert report.by_status == {"ok": 3}
    assert report.turns == 3


async def test_what_nothing_maps_to_is_denied_in_its_place():
    run = FakeRun()

    report = await replay(run, *load("openai-chat-odd.json"))

    assert [each[:2] for each in run.asked] == [
        ("deny", "write_file"),
        ("call", "terminal"),
        ("deny", "frobnicate"),
        ("call", "patch"),
        ("deny", "read_file"),
    ]
    assert report.by_code == {"arguments.invalid": 2, "tool.unmapped": 1}
    assert report.by_status == {"denied": 3, "ok": 2}


@pytest.mark.parametrize("name", sorted(RECORDINGS))
async def test_no_recorded_call_is_left_out(name):
    run = FakeRun()
    recording, tool_map = load(name)

    report = await replay(run, recording, tool_map)

    assert len(run.asked) == len(report.calls) == len(recording.calls)
    assert [call.recorded_tool for call in report.calls] == [call.tool for call in recording.calls]


async def test_an_id_that_the_recording_uses_twice_is_no_repetition():
    run = FakeRun()
    recording, tool_map = load("openai-chat.json")
    same = tuple(replace(call, client_call_id="call_0") for call in recording.calls)

    await replay(run, replace(recording, calls=same), tool_map)

    assert [each[3] for each in run.asked] == ["call_0#0", "call_0#1", "call_0#2"]


async def test_calls_without_an_id_get_one_that_is_the_same_each_time():
    first, second = FakeRun(), FakeRun()

    await replay(first, *load("mini-swe-agent-1.traj.json"))
    await replay(second, *load("mini-swe-agent-1.traj.json"))

    ids = [each[3] for each in first.asked]
    assert ids == [each[3] for each in second.asked] == ["recorded-0", "recorded-1"]


async def test_who_answered_is_noted_before_any_call():
    run = FakeRun()
    recording, tool_map = load("claude-code.jsonl")

    await replay(run, recording, tool_map)

    assert tuple(run.route) == recording.route
    assert run.turns == recording.turns == 4


async def test_one_turn_runs_one_after_the_other_unless_asked():
    apart, at_once = FakeRun(), FakeRun()

    await replay(apart, *load("openai-chat.json"))
    report = await replay(at_once, *load("openai-chat.json"), parallel=True)

    assert (apart.most_at_once, at_once.most_at_once) == (1, 2)
    assert [call.index for call in report.calls] == [0, 1, 2]


async def test_an_exit_status_that_differs_is_told_and_decides_nothing():
    run = FakeRun(exit_codes=[1, 1, None])

    report = await replay(run, *load("mini-swe-agent-2.traj.json"))

    assert [call.exit_code_differs for call in report.calls] == [True, False, None]
    assert [call.index for call in report.differing] == [0]
    assert report.by_status == {"ok": 3}
    assert report.to_json()["exit_codes_that_differ"] == 1


async def test_progress_is_told_after_each_call():
    told = []

    def progress(*, done, total, call):
        told.append((done, total, call.recorded_tool))

    await replay(FakeRun(), *load("simple.jsonl"), progress=progress)

    assert told == [(1, 4, "write_file"), (2, 4, "terminal"), (3, 4, "terminal"), (4, 4, "paint")]


@pytest.mark.parametrize(
    ("name", "notes"), [("codex-rollout.jsonl", 0), ("hermes-state.json", 1), ("simple.jsonl", 0)]
)
async def test_another_folder_than_the_recorded_one_is_noted(name, notes):
    report = await replay(FakeRun(), *load(name))

    assert len(report.notes) == notes

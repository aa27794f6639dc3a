"""A replay into a real run: every call is in the journal, and none is charged twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from anyio import to_thread

from budgets.remit import parse
from executor.recordings import load_recording
from executor.recordings.tool_map import tool_map_for
from executor.replay import replay
from executor.run import open_run
from executor.store import RunStore
from sandboxes.testing import FakeBackend, exec_result

FIXTURES = Path(__file__).parents[2] / "fixtures" / "recordings"
# Read before any event loop runs: reading blocks.
RECORDINGS = {path.name: load_recording(path) for path in FIXTURES.iterdir()}
REMIT = """
version: 1
task: {id: list, class: test}
route: {model: demo-large}
scope: {workspace: tree, read: ["**"], write: [list.txt]}
budget:
  tools: {write_file: 1, read_file: 1, terminal: 1}
  violations: 50
"""

pytestmark = pytest.mark.anyio


class CutOffError(Exception):
    """Stands for whatever ends a replay half way."""


@pytest.fixture
def open_here(tmp_path):
    (tmp_path / "tree").mkdir()
    store = RunStore(tmp_path / "state")
    backend = FakeBackend(script=lambda _sandbox, _request: exec_result(b"2 list.txt\n"))

    def opening(*, resume=None):
        remit = parse(REMIT, source="test.yaml")
        return open_run(remit, base=tmp_path, store=store, resume=resume, sandbox_factory=backend)

    return opening


def load(name):
    recording = RECORDINGS[name]
    return recording, tool_map_for(recording.format)


def decided(run):
    records = [json.loads(line) for line in run.directory.journal_path.read_text().splitlines()]
    return [record["body"] for record in records if record["kind"] == "call.decided"]


async def test_every_call_is_in_the_journal_with_what_was_decided(open_here):
    async with open_here() as run:
        report = await replay(run, *load("openai-chat-odd.json"))

    bodies = await to_thread.run_sync(decided, run)
    assert [body["tool"] for body in bodies] == ["write_file", "terminal", "frobnicate", "patch", "read_file"]
    assert [[reason["code"] for reason in body["reasons"]][:1] for body in bodies] == [
        ["arguments.invalid"],
        ["arguments.invalid"],
        ["tool.unmapped"],
        ["scope.write"],
        ["arguments.invalid"],
    ]
    assert report.by_status == {"denied": 5}


async def test_an_interrupted_replay_goes_on_without_charging_twice(open_here):
    def stop_after_two(*, done, total, call):
        if done == 2:
            raise CutOffError

    with pytest.raises(CutOffError):
        async with open_here() as run:
            await replay(run, *load("openai-chat.json"), progress=stop_after_two)
    async with open_here(resume=run.id) as resumed:
        report = await replay(resumed, *load("openai-chat.json"))

    assert [(call.status, call.repeated) for call in report.calls] == [
        ("ok", True),
        ("ok", True),
        ("ok", False),
    ]
    assert len(await to_thread.run_sync(decided, resumed)) == 3


async def test_a_route_that_the_recording_has_no_word_on_is_unproven(open_here):
    async with open_here() as run:
        await replay(run, *load("openai-chat.json"))
        result = await run.finish()

    assert result.verdict.outcome == "unproven"
    assert "route.missing" in [reason.code for reason in result.verdict.reasons]

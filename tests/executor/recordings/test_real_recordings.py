"""Files that real agents wrote: every tool call in them is found. Skipped where the files are not at hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from executor.recordings import load_recording
from executor.recordings.tool_map import MappedCall, tool_map_for

SHARED = Path(__file__).parents[4] / "shared" / "fixtures"
AGENTS = SHARED / "agents"
MARSHMALLOW = SHARED / "recordings" / "marshmallow-1343.traj.json"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the recordings of real agents are not here")


def found(pattern):
    return [pytest.param(path, id=path.relative_to(AGENTS).parts[0]) for path in sorted(AGENTS.glob(pattern))]


@pytest.mark.parametrize("path", found("*/home/.claude/projects/**/*.jsonl"))
def test_claude_code(path):
    # Counted in the text, not by walking the structure as the parser does.
    expected = re.findall(r'"type": ?"tool_use", ?"id": ?"([^"]+)", ?"name": ?"([^"]+)"', path.read_text())

    recording = load_recording(path)

    assert recording.format == "claude-code"
    assert [(call.client_call_id, call.tool) for call in recording.calls] == expected
    assert all(call.recorded_output is not None for call in recording.calls)
    assert {piece.served_model for piece in recording.route} == set(
        re.findall(r'"role": ?"assistant", ?"model": ?"([^"]+)"', path.read_text())
    )


@pytest.mark.parametrize("path", found("*/home/.codex/sessions/**/*.jsonl"))
def test_codex(path):
    text = path.read_text()
    expected = [
        json.loads(line)["payload"]["call_id"]
        for line in text.splitlines()
        if re.search(r'"type": ?"(?:function_call|custom_tool_call|local_shell_call)"', line)
    ]

    recording = load_recording(path)

    assert recording.format == "codex-rollout"
    assert [call.client_call_id for call in recording.calls] == expected
    assert recording.turns == len(re.findall(r'"type": ?"token_usage_record"', text))
    assert {piece.served_model for piece in recording.route} <= {None}


@pytest.mark.parametrize("path", found("*/hermes_home/**/state.db.dump.json"))
def test_hermes(path):
    dump = json.loads(path.read_text())
    expected = [
        call["function"]["name"]
        for message in dump["messages"]
        if message.get("tool_calls")
        for call in json.loads(message["tool_calls"])
    ]

    recording = load_recording(path)

    assert recording.format == "hermes-session"
    assert [call.tool for call in recording.calls] == expected
    assert len(recording.calls) == sum(session.get("tool_call_count", 0) for session in dump["sessions"])
    providers = {
        row["billing_provider"] for row in dump.get("session_model_usage", []) if not row.get("task")
    }
    assert {piece.served_provider for piece in recording.route} - {None} == providers


@pytest.mark.parametrize("path", found("[a-h]_*/transcript.jsonl"))
def test_the_last_request_on_the_wire_as_openai_chat(path, tmp_path):
    bodies = [json.loads(line).get("request") for line in path.read_text().splitlines()]
    requests = [body for body in bodies if isinstance(body, dict) and "messages" in body]
    recording_path = tmp_path / "request.json"
    recording_path.write_text(json.dumps(requests[-1]))

    recording = load_recording(recording_path)

    assert recording.format == "openai-chat"
    assert len(recording.calls) == json.dumps(requests[-1]["messages"]).count('"type": "function"')


def test_marshmallow():
    document = json.loads(MARSHMALLOW.read_text())
    expected = [
        action["command"]
        for message in document["messages"]
        if message["role"] == "assistant"
        for action in message["extra"]["actions"]
    ]

    recording = load_recording(MARSHMALLOW)
    tool_map = tool_map_for(recording.format)
    results = [tool_map.map(call) for call in recording.calls]

    assert (len(recording.calls), recording.turns, recording.cwd) == (104, 104, "/testbed")
    assert [call.tool for call in recording.calls] == ["bash"] * 104
    assert [(r.tool, r.arguments) for r in results if isinstance(r, MappedCall)] == [
        ("terminal", {"command": command}) for command in expected
    ]
    assert {piece.served_model for piece in recording.route} == {"deepseek-chat"}
    codes = [call.recorded_exit_code for call in recording.calls]
    assert (codes.count(0), codes.count(1), codes.count(None)) == (98, 5, 1)

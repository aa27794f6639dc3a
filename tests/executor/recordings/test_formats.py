"""Each format gives every call it holds, in order, with what was recorded of its end and of who answered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from executor.recordings import FORMATS, RecordingInvalid, load_recording
from executor.recordings import recording as recording_module

FIXTURES = Path(__file__).parents[2] / "fixtures" / "recordings"

EXPECTED = {
    "openai-chat.json": ("openai-chat", ["write_file", "read_file", "terminal"], 3),
    "openai-chat-list.json": ("openai-chat", ["write_file", "read_file", "terminal"], 3),
    "openai-chat-messages.jsonl": ("openai-chat", ["write_file", "read_file", "terminal"], 3),
    "openai-chat-requests.jsonl": ("openai-chat", ["write_file", "read_file", "terminal"], 3),
    "openai-chat-odd.json": (
        "openai-chat",
        ["write_file", "terminal", "frobnicate", "apply_patch", "read_file"],
        3,
    ),
    "anthropic.json": ("anthropic", ["Read", "Grep", "Edit", "web_search"], 3),
    "anthropic.jsonl": ("anthropic", ["Read", "Grep", "Edit", "web_search"], 3),
    "mini-swe-agent-1.traj.json": ("mini-swe-agent", ["bash", "bash"], 3),
    "mini-swe-agent-2.traj.json": ("mini-swe-agent", ["bash", "bash", "bash"], 2),
    "mini-swe-agent-2-text.traj.json": ("mini-swe-agent", ["bash"], 1),
    "hermes-export.jsonl": ("hermes-session", ["write_file", "terminal", "execute_code", "read_file"], 4),
    "hermes-state.json": ("hermes-session", ["write_file", "terminal", "execute_code"], 3),
    "claude-code.jsonl": ("claude-code", ["Bash", "Task", "Glob", "mcp__remit__write_file", "Write"], 4),
    "codex-rollout.jsonl": (
        "codex-rollout",
        [
            "exec_command",
            "shell",
            "apply_patch",
            "local_shell",
            "mcp__remit__write_file",
            "shell",
            "update_plan",
        ],
        6,
    ),
    "simple.jsonl": ("simple", ["write_file", "terminal", "terminal", "paint"], 3),
}


def load(name):
    return load_recording(FIXTURES / name)


def test_every_fixture_is_expected_and_every_format_has_one():
    assert {path.name for path in FIXTURES.iterdir()} == set(EXPECTED)
    assert {each[0] for each in EXPECTED.values()} == set(FORMATS)


@pytest.mark.parametrize("name", EXPECTED)
def test_format_is_told_by_content_and_every_call_is_there(name):
    format_name, tools, turns = EXPECTED[name]

    recording = load(name)

    assert (recording.format, [call.tool for call in recording.calls]) == (format_name, tools)
    assert recording.turns == turns
    assert [call.index for call in recording.calls] == list(range(len(tools)))
    assert all(0 <= call.turn < turns for call in recording.calls)


@pytest.mark.parametrize("name", EXPECTED)
def test_naming_the_format_reads_the_same_and_the_file_name_does_not_matter(name, tmp_path):
    renamed = tmp_path / "recording.bin"
    shutil.copy(FIXTURES / name, renamed)

    assert load_recording(renamed, EXPECTED[name][0]) == load(name)


def test_calls_of_one_answer_share_a_turn():
    assert [call.turn for call in load("openai-chat.json").calls] == [0, 0, 1]
    assert [call.turn for call in load("codex-rollout.jsonl").calls] == [0, 0, 1, 2, 3, 4, 4]
    assert [call.turn for call in load("simple.jsonl").calls] == [0, 1, 1, 2]


def test_openai_results_reach_the_call_of_their_id():
    calls = load("openai-chat.json").calls

    assert [call.client_call_id for call in calls] == ["call_1", "call_2", "call_3"]
    assert calls[1].recorded_output == '{"content": "1|tea\\n2|rice"}'
    assert [call.recorded_exit_code for call in calls] == [None, None, 0]


def test_arguments_that_are_no_json_object_are_kept_as_text():
    broken, empty, known, freeform, listed = load("openai-chat-odd.json").calls

    assert broken.arguments is None
    assert broken.raw_arguments == '{"path": "a.txt", "content": '
    assert empty.arguments == {}
    assert known.arguments == {"level": 3}
    assert freeform.arguments == {"input": "*** Begin Patch\n*** Delete File: a.txt\n*** End Patch\n"}
    assert (listed.arguments, listed.raw_arguments) == (None, "[1, 2]")


def test_a_history_that_each_request_repeats_counts_once():
    requests, whole = load("openai-chat-requests.jsonl"), load("openai-chat.json")

    assert [(call.tool, call.arguments) for call in requests.calls] == [
        (call.tool, call.arguments) for call in whole.calls
    ]


def test_anthropic_route_names_the_model_that_was_asked_and_the_one_that_answered():
    route = load("anthropic.json").route

    assert [(piece.turn, piece.tier) for piece in route] == [(0, 1), (1, 1), (2, 1)]
    assert {(piece.requested_model, piece.served_model) for piece in route} == {
        ("demo-sonnet", "demo-sonnet-3")
    }


def test_mini_swe_agent_tool_calls_win_over_fenced_talk():
    recording = load("mini-swe-agent-2.traj.json")

    assert [call.arguments for call in recording.calls] == [
        {"command": "ls | wc -l"},
        {"command": "grep -r nothing ."},
        {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"},
    ]
    assert [call.recorded_exit_code for call in recording.calls] == [0, 1, None]
    assert recording.cwd == "/srv/code"
    assert {(e.requested_model, e.served_model) for e in recording.route} == {
        ("maker/demo-coder", "demo-coder-7"),
    }


def test_mini_swe_agent_1_runs_the_one_fenced_command_of_a_reply():
    recording = load("mini-swe-agent-1.traj.json")

    assert [call.arguments for call in recording.calls] == [
        {"command": "ls |\n  wc -l"},
        {"command": "false"},
    ]
    assert [call.recorded_exit_code for call in recording.calls] == [0, 1]
    assert recording.notes == (
        "messages[4]: 2 command blocks where one is needed; mini-swe-agent ran none of them",
    )


def test_hermes_usage_rows_become_turns_in_the_order_they_answered():
    recording = load("hermes-state.json")

    main = [piece for piece in recording.route if piece.served_provider is not None]
    assert [(piece.turn, piece.served_provider, piece.fallback) for piece in main] == [
        (0, "demohost", False),
        (1, "demohost", False),
        (2, "otherhost", True),
    ]
    assert all(piece.served_model is None for piece in recording.route)
    assert [call.recorded_exit_code for call in recording.calls] == [None, 0, None]


def test_hermes_session_without_usage_shows_its_first_turn_only():
    route = load("hermes-export.jsonl").route

    assert [(piece.turn, piece.served_provider) for piece in route] == [(0, "demohost"), (3, "demohost")]


def test_claude_code_repeats_count_once_and_subagents_are_noted():
    recording = load("claude-code.jsonl")

    assert [call.client_call_id for call in recording.calls] == [f"toolu_{n}" for n in range(1, 6)]
    assert recording.calls[0].recorded_exit_code == 2
    assert recording.notes == (
        "line 11: fell back from demo-opus-2 to demo-haiku-1",
        "2 lines or calls that the file repeats were counted once",
        "1 calls were made by subagents",
    )


def test_claude_code_route_shows_the_fallback_from_the_notice_on():
    route = load("claude-code.jsonl").route

    assert [(piece.served_model, piece.fallback) for piece in route] == [
        ("demo-opus-2", False),
        ("demo-opus-2", False),
        ("demo-haiku-1", False),
        ("demo-haiku-1", True),
    ]


def test_codex_rollout_shows_no_served_model():
    recording = load("codex-rollout.jsonl")

    assert {(p.requested_model, p.served_provider, p.served_model) for p in recording.route} == {
        ("demo-codex", "demo-cloud", None)
    }
    assert [call.recorded_exit_code for call in recording.calls] == [0, 0, 0, None, None, None, None]
    assert recording.cwd == "/home/u/app"


def test_simple_lines_keep_what_was_told():
    calls = load("simple.jsonl").calls

    assert [call.recorded_exit_code for call in calls] == [None, 0, 1, None]
    assert calls[3].raw_arguments == "not json"


@pytest.mark.parametrize(
    "call",
    [
        {"id": "call_1", "type": "function", "function": {"arguments": "{}"}},
        {"id": "call_1", "type": "function"},
        "call",
        None,
    ],
)
def test_a_tool_call_without_a_name_refuses_the_recording(tmp_path, call):
    path = tmp_path / "r.json"
    path.write_text(
        json.dumps([{"role": "user", "content": ""}, {"role": "assistant", "tool_calls": [call]}])
    )

    with pytest.raises(RecordingInvalid) as refused:
        load_recording(path)

    assert refused.value.where == "messages[1] tool_calls[0]"


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("anthropic.json", "openai-chat"),
        ("openai-chat.json", "anthropic"),
        ("simple.jsonl", "hermes-session"),
    ],
)
def test_the_wrong_format_is_an_error_and_not_an_empty_recording(name, format_name):
    with pytest.raises(RecordingInvalid):
        load_recording(FIXTURES / name, format_name)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"\\ud800": 1}',
        "[]",
        "7",
        "{",
        '{"a":' * 100 + "1" + "}" * 100,
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_arguments_that_could_not_be_written_down_again_are_kept_as_text(tmp_path, arguments):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"tool": "terminal", "arguments": arguments}) + "\n")

    (call,) = load_recording(path).calls

    assert call.arguments is None
    assert call.raw_arguments == arguments
    call.raw_arguments.encode()


def lines(tmp_path, *values):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def test_codex_reroute_is_a_fallback_from_there_on(tmp_path):
    def said(text):
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        return {"type": "response_item", "payload": message}

    path = lines(
        tmp_path,
        {"type": "turn_context", "payload": {"model": "large"}},
        said("one"),
        {"type": "token_usage_record", "payload": {}},
        {"type": "event_msg", "payload": {"type": "model_reroute", "to_model": "small"}},
        said("two"),
    )

    recording = load_recording(path)

    assert [(p.served_model, p.fallback) for p in recording.route] == [(None, False), ("small", True)]
    assert recording.notes == ("line 4: rerouted to small",)


def test_claude_code_stream_tells_the_requested_model_and_a_fallback(tmp_path):
    def answer(number, model):
        message = {"id": f"m{number}", "role": "assistant", "model": model, "content": []}
        return {"type": "assistant", "message": message, "session_id": "s", "uuid": f"u{number}"}

    path = lines(
        tmp_path,
        {
            "type": "system",
            "subtype": "init",
            "session_id": "s",
            "claude_code_version": "2",
            "model": "large",
        },
        {"type": "system", "subtype": "api_retry", "session_id": "s", "uuid": "r"},
        answer(1, "large"),
        {"type": "system", "subtype": "model_fallback", "original_model": "large", "fallback_model": "small"},
        answer(2, "small"),
        {"type": "result", "subtype": "success"},
    )

    recording = load_recording(path)

    assert [(p.requested_model, p.served_model, p.fallback) for p in recording.route] == [
        ("large", "large", False),
        ("large", "small", True),
    ]
    assert len(recording.notes) == 2


def test_notes_are_bounded(tmp_path):
    reply = {"role": "assistant", "content": "no command at all"}
    document = {"trajectory_format": "mini-swe-agent-1", "messages": [reply] * 500}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document))

    notes = load_recording(path).notes

    assert len(notes) == 101
    assert notes[-1] == "400 more notes of this kind"


def test_kept_output_is_bounded(tmp_path):
    path = lines(tmp_path, {"tool": "terminal", "arguments": {"command": "yes"}, "output": "y\n" * 100_000})

    (call,) = load_recording(path).calls

    assert len(call.recorded_output) == 16 * 1024


def test_more_calls_than_the_bound_refuse_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(recording_module, "MAX_CALLS", 2)
    path = lines(tmp_path, *[{"tool": "terminal", "arguments": {}}] * 3)

    with pytest.raises(RecordingInvalid) as refused:
        load_recording(path)

    assert refused.value.where == "line 3"


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(RecordingInvalid) as refused:
        load_recording(tmp_path / "r.json", "openai")

    assert "openai-chat" in refused.value.hint

"""A dry run decides like the broker, charges what is declared, and says what it cannot know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from budgets.remit import parse
from executor.dry_run import dry_run
from executor.recordings import load_recording
from executor.recordings.tool_map import tool_map_for

FIXTURES = Path(__file__).parents[2] / "fixtures" / "recordings"
REMIT = """
version: 1
task: {{id: list, class: test}}
scope:
  workspace: .
  read: ["**"]
  write: [{write}]
  deny: ["secret/**"]
budget:
  tools: {tools}
  violations: {violations}
approve: {approve}
"""
ALL = "{read_file: 5, write_file: 5, terminal: 5}"


def remit(*, write="list.txt", tools=ALL, violations=9, approve="[]"):
    text = REMIT.format(write=write, tools=tools, violations=violations, approve=approve)
    return parse(text, source="test.yaml")


def decide_lines(tmp_path, contract, *calls):
    path = tmp_path / "calls.jsonl"
    path.write_text("".join(json.dumps(call) + "\n" for call in calls))
    return dry_run(contract, load_recording(path), tool_map_for("simple"))


def write(path, content=""):
    return {"tool": "write_file", "arguments": {"path": path, "content": content}}


def codes(report):
    return [[reason.code for reason in call.decision.reasons] for call in report.calls]


def test_a_run_within_its_remit_is_in_bounds():
    recording = load_recording(FIXTURES / "openai-chat.json")

    report = dry_run(remit(), recording, tool_map_for(recording.format))

    assert report.in_bounds
    assert report.by_action == {"allow": 3}
    assert report.remaining.tools == {"read_file": 4, "write_file": 4, "terminal": 4}
    assert [call.runs_command for call in report.calls] == [False, False, True]
    assert any("1 commands" in sentence for sentence in report.unknowns)
    json.dumps(report.to_json())


def test_a_budget_that_runs_out_denies_the_rest(tmp_path):
    report = decide_lines(tmp_path, remit(tools="{write_file: 1}"), write("list.txt"), write("list.txt"))

    assert codes(report) == [[], ["budget.tools.write_file"]]
    assert not report.in_bounds


@pytest.mark.parametrize(
    ("path", "code"),
    [("other.txt", "scope.write"), ("../x", "scope.outside"), ("/etc/passwd", "scope.outside")],
)
def test_paths_are_decided_as_the_broker_would(tmp_path, path, code):
    report = decide_lines(tmp_path, remit(), write(path))

    assert code in codes(report)[0]


def test_a_denied_path_is_denied_to_a_reader(tmp_path):
    call = {"tool": "read_file", "arguments": {"path": "secret/key"}}

    assert "scope.deny" in codes(decide_lines(tmp_path, remit(), call))[0]


def test_what_is_no_call_of_ours_is_denied_with_its_own_code(tmp_path):
    report = decide_lines(
        tmp_path,
        remit(),
        {"tool": "paint", "arguments": {}},
        {"tool": "terminal", "arguments": "{"},
        {"tool": "terminal", "arguments": {"command": 7}},
    )

    assert [listed[0] for listed in codes(report)] == [
        "tool.unmapped",
        "arguments.invalid",
        "arguments.invalid",
    ]


def test_the_run_is_stopped_at_its_last_violation(tmp_path):
    report = decide_lines(
        tmp_path, remit(violations=2), write("../a"), write("../b"), write("list.txt"), write("list.txt")
    )

    assert codes(report)[2:] == [["budget.violations"], ["budget.violations"]]
    assert report.remaining.violations == 0


def test_written_bytes_are_charged(tmp_path):
    text = REMIT.format(write="list.txt", tools=ALL, violations=9, approve="[]")
    contract = parse(text.replace("violations: 9", "violations: 9\n  written: 10"), source="test.yaml")

    report = decide_lines(tmp_path, contract, write("list.txt", "x" * 8), write("list.txt", "x" * 8))

    assert codes(report) == [[], ["budget.written"]]


def test_calls_that_a_person_would_be_asked_about_are_counted_and_said(tmp_path):
    contract = remit(approve="[write_file]")

    report = decide_lines(tmp_path, contract, write("list.txt"))

    assert report.by_action == {"ask": 1}
    assert report.in_bounds
    assert any("approved" in sentence for sentence in report.unknowns)


def test_a_recording_without_calls_is_in_bounds(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"messages": [{"role": "user", "content": "hello"}]}')
    recording = load_recording(path)

    report = dry_run(remit(), recording, tool_map_for(recording.format))

    assert report.in_bounds
    assert report.calls == ()

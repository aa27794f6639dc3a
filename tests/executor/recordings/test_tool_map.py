"""Recorded calls become ours by exact names; what nothing maps to is said and never bent."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from budgets.call import ToolCall
from budgets.reasons import Reason
from executor.recordings import FORMATS, RecordedCall, load_recording
from executor.recordings.profiles import PROFILES, PROFILES_OF_FORMAT, Rule
from executor.recordings.tool_map import MapInvalid, MappedCall, Unmapped, parse_map, tool_map_for
from executor.tools.registry import TOOLS, understand

FIXTURES = Path(__file__).parents[2] / "fixtures" / "recordings"
PATCH = "*** Begin Patch\n*** Update File: app.py\n@@\n-*** Add File: x\n+y\n*** End Patch"


def mapped(profile, tool, arguments, *, maps=(), format_name="openai-chat"):
    call = RecordedCall(index=0, tool=tool, arguments=arguments, turn=0)
    return tool_map_for(format_name, profiles=[profile] if profile else [], maps=maps).map(call)


MAPPED = [
    ("mini-swe-agent", "bash", {"command": "ls"}, "terminal", {"command": "ls"}),
    ("claude-code", "Bash", {"command": "ls", "description": "List"}, "terminal", {"command": "ls"}),
    ("claude-code", "Bash", {"command": "a", "timeout": 1500}, "terminal", {"command": "a", "timeout": 2}),
    ("claude-code", "Bash", {"command": "a", "timeout": 9e6}, "terminal", {"command": "a", "timeout": 600}),
    ("claude-code", "Bash", {"command": "a", "run_in_background": False}, "terminal", {"command": "a"}),
    ("claude-code", "Bash", {"command": "a", "timeout": None}, "terminal", {"command": "a"}),
    ("claude-code", "Write", {"file_path": "a", "content": "b"}, "write_file", {"path": "a", "content": "b"}),
    (
        "claude-code",
        "Edit",
        {"file_path": "a", "old_string": "x", "new_string": "y", "replace_all": True},
        "patch",
        {"mode": "replace", "path": "a", "old_string": "x", "new_string": "y", "replace_all": True},
    ),
    (
        "claude-code",
        "MultiEdit",
        {"file_path": "a", "edits": [{"old_string": "x", "new_string": "y"}]},
        "patch",
        {"mode": "replace", "path": "a", "old_string": "x", "new_string": "y"},
    ),
    (
        "claude-code",
        "Read",
        {"file_path": "a", "offset": 3, "limit": 9000},
        "read_file",
        {"path": "a", "offset": 3, "limit": 2000},
    ),
    (
        "claude-code",
        "Glob",
        {"pattern": "*.py", "path": "src"},
        "search_files",
        {"target": "files", "pattern": "*.py", "path": "src"},
    ),
    (
        "claude-code",
        "Grep",
        {"-i": True, "pattern": "x", "type": "py", "-A": 3, "-B": 1, "-n": True, "head_limit": 5},
        "search_files",
        {
            "target": "content",
            "output_mode": "files_only",
            "pattern": "(?i)x",
            "file_glob": "*.py",
            "context": 3,
            "limit": 5,
        },
    ),
    (
        "claude-code",
        "Grep",
        {"pattern": "x", "output_mode": "content"},
        "search_files",
        {"target": "content", "output_mode": "content", "pattern": "x"},
    ),
    ("claude-code", "LS", {"path": "src"}, "list_files", {"path": "src"}),
    (
        "codex",
        "exec_command",
        {"cmd": "ls", "workdir": "src", "yield_time_ms": 5, "max_output_tokens": 9},
        "terminal",
        {"command": "ls", "workdir": "src"},
    ),
    (
        "codex",
        "shell",
        {"command": ["bash", "-lc", "echo 'a  b'; ls"], "timeout_ms": 10},
        "terminal",
        {"command": shlex.join(["bash", "-lc", "echo 'a  b'; ls"]), "timeout": 1},
    ),
    (
        "codex",
        "local_shell",
        {"type": "exec", "command": ["ls"], "working_directory": "a", "env": {}, "user": None},
        "terminal",
        {"command": "ls", "workdir": "a"},
    ),
    ("codex", "apply_patch", {"input": PATCH}, "patch", {"mode": "patch", "patch": PATCH}),
    ("codex", "shell", {"command": ["apply_patch", PATCH]}, "patch", {"mode": "patch", "patch": PATCH}),
    (
        "codex",
        "shell",
        {"command": ["bash", "-lc", f"apply_patch <<'EOF'\n{PATCH}\nEOF\n"], "workdir": "/w/sub/"},
        "patch",
        {"mode": "patch", "patch": PATCH.replace("Update File: ", "Update File: /w/sub/")},
    ),
    (
        "codex",
        "exec_command",
        {"cmd": f"apply_patch <<EOF\n{PATCH}\nEOF\nrm x"},
        "terminal",
        {"command": f"apply_patch <<EOF\n{PATCH}\nEOF\nrm x"},
    ),
    (
        "gemini",
        "run_shell_command",
        {"command": "ls", "directory": "a", "is_background": False},
        "terminal",
        {"command": "ls", "workdir": "a"},
    ),
    (None, "write_file", {"file_path": "a", "content": ""}, "write_file", {"path": "a", "content": ""}),
    (
        "gemini",
        "replace",
        {"file_path": "a", "old_string": "x", "new_string": "y", "expected_replacements": 1},
        "patch",
        {"mode": "replace", "path": "a", "old_string": "x", "new_string": "y"},
    ),
    (
        "gemini",
        "read_file",
        {"absolute_path": "/w/a", "offset": 0, "limit": 10},
        "read_file",
        {"path": "/w/a", "offset": 1, "limit": 10},
    ),
    (
        "gemini",
        "read_file",
        {"file_path": "a", "start_line": 5, "end_line": 7},
        "read_file",
        {"path": "a", "offset": 5, "limit": 3},
    ),
    ("gemini", "list_directory", {"path": "."}, "list_files", {"path": "."}),
    (
        "gemini",
        "grep_search",
        {"pattern": "x", "include": "*.py"},
        "search_files",
        {"target": "content", "pattern": "x", "file_glob": "*.py"},
    ),
    (
        "opencode",
        "edit",
        {"filePath": "a", "oldString": "x", "newString": "y"},
        "patch",
        {"mode": "replace", "path": "a", "old_string": "x", "new_string": "y"},
    ),
    (
        "text-editor",
        "str_replace_editor",
        {"command": "view", "path": "a", "view_range": [2, 4]},
        "read_file",
        {"path": "a", "offset": 2, "limit": 3},
    ),
    (
        "text-editor",
        "str_replace_based_edit_tool",
        {"command": "create", "path": "a", "file_text": "x"},
        "write_file",
        {"path": "a", "content": "x"},
    ),
    (
        "text-editor",
        "str_replace_editor",
        {"command": "str_replace", "path": "a", "old_str": "x"},
        "patch",
        {"mode": "replace", "path": "a", "old_string": "x", "new_string": ""},
    ),
    ("hermes", "terminal", {"command": "ls", "pty": False}, "terminal", {"command": "ls", "pty": False}),
    ("claude-code", "mcp__broker__read_file", {"path": "a"}, "read_file", {"path": "a"}),
    ("mcp:broker", "broker_read_file", {"path": "a"}, "read_file", {"path": "a"}),
    ("mcp:broker", "mcp_broker_read_file", {"path": "a"}, "read_file", {"path": "a"}),
]


@pytest.mark.parametrize(("profile", "tool", "arguments", "ours", "expected"), MAPPED)
def test_a_known_call_becomes_ours(profile, tool, arguments, ours, expected):
    result = mapped(profile, tool, arguments)

    assert isinstance(result, MappedCall)
    assert (result.tool, dict(result.arguments)) == (ours, expected)
    call = ToolCall(id="c-1", tool=result.tool, arguments=result.arguments)
    assert not isinstance(understand(call), Reason)


UNMAPPED = [
    ("claude-code", "bash", {"command": "ls"}),
    ("claude-code", "Bash2", {"command": "ls"}),
    ("claude-code", "Bash", {"command": "ls", "run_in_background": True}),
    ("claude-code", "Bash", {"command": "ls", "something_new": 1}),
    ("claude-code", "MultiEdit", {"file_path": "a", "edits": [{}, {}]}),
    ("claude-code", "Read", {"file_path": "a", "pages": "1-3"}),
    ("claude-code", "Grep", {"pattern": "x", "type": "cobol"}),
    ("claude-code", "Grep", {"pattern": "x", "multiline": True}),
    ("claude-code", "WebFetch", {"url": "https://example.org"}),
    ("codex", "write_stdin", {"session_id": 1, "chars": "y"}),
    ("codex", "exec_command", {"cmd": "top", "tty": True}),
    ("codex", "local_shell", {"type": "exec", "command": ["ls"], "env": {"LD_PRELOAD": "x"}}),
    ("codex", "shell", {"command": []}),
    ("codex", "shell", {"command": ["ls", 3]}),
    (
        "gemini",
        "replace",
        {"file_path": "a", "old_string": "x", "new_string": "y", "expected_replacements": 4},
    ),
    ("text-editor", "str_replace_editor", {"command": "undo_edit", "path": "a"}),
    ("claude-code", "mcp__broker__delete_everything", {}),
    ("claude-code", "mcp____read_file", {"path": "a"}),
    ("claude-code", "broker_read_file", {"path": "a"}),
    ("mcp:broker", "brokers_read_file", {"path": "a"}),
    ("mcp:broker", "broker_read_files", {"path": "a"}),
    ("mcp:broker", "xmcp_broker_read_file", {"path": "a"}),
    ("remit", "Write_File", {"path": "a", "content": ""}),
]


@pytest.mark.parametrize(("profile", "tool", "arguments"), UNMAPPED)
def test_what_nothing_maps_to_says_so(profile, tool, arguments):
    result = mapped(profile, tool, arguments)

    assert isinstance(result, Unmapped)
    assert result.reason.code == "tool.unmapped"
    assert result.arguments == arguments


@pytest.mark.parametrize(
    ("tool", "ours"), [("Bash", "terminal"), ("mcp__x__patch", "patch"), ("Unknown", "Unknown")]
)
def test_arguments_that_are_no_object_are_invalid_under_our_name_where_it_is_known(tool, ours):
    call = RecordedCall(index=0, tool=tool, arguments=None, raw_arguments="{\x1b", turn=0)

    result = tool_map_for("claude-code").map(call)

    assert isinstance(result, Unmapped)
    assert (result.tool, result.reason.code) == (ours, "arguments.invalid")
    assert result.arguments == {"raw_arguments": "{\x1b"}
    assert "\x1b" not in result.reason.detail


def test_our_own_arguments_win_over_a_profile_that_shares_the_name():
    result = mapped(None, "read_file", {"path": "a", "offset": 0})

    assert result == MappedCall(tool="read_file", arguments={"path": "a", "offset": 0}, via="remit")


def test_a_user_map_wins_over_every_profile_and_renames():
    result = mapped("claude-code", "Bash", {"cmd": "ls", "why": "x"}, maps=["Bash=terminal,cmd=command,why="])

    assert result == MappedCall(tool="terminal", arguments={"command": "ls"}, via="map")


def test_a_user_map_that_joins_two_arguments_is_not_used():
    result = mapped(None, "run", {"cmd": "a", "command": "b"}, maps=["run=terminal,cmd=command"])

    assert isinstance(result, Unmapped)


@pytest.mark.parametrize(
    "text", ["", "a", "=terminal", "a=", "a=shell", "a=terminal,b", "a=terminal,=c", "a=terminal,b=c,b=d"]
)
def test_an_unusable_map_is_refused_with_a_hint(text):
    with pytest.raises(MapInvalid) as refused:
        parse_map(text)

    assert refused.value.hint


@pytest.mark.parametrize("profile", ["claude", "Claude-Code", "mcp:", ""])
def test_an_unknown_profile_is_refused_with_a_hint(profile):
    with pytest.raises(MapInvalid) as refused:
        tool_map_for("simple", profiles=[profile])

    assert refused.value.hint


def test_every_format_has_profiles_and_every_rule_names_a_tool_of_ours():
    assert set(PROFILES_OF_FORMAT) == set(FORMATS)
    rules = [rule for profile in PROFILES.values() for rule in profile.values() if isinstance(rule, Rule)]
    assert {rule.target for rule in rules} == set(TOOLS)


def test_the_fixtures_map_as_far_as_they_can():
    unmapped = {}
    for path in FIXTURES.iterdir():
        recording = load_recording(path)
        tool_map = tool_map_for(recording.format)
        results = [tool_map.map(call) for call in recording.calls]
        unmapped[path.name] = [result.tool for result in results if isinstance(result, Unmapped)]

    assert {name: tools for name, tools in unmapped.items() if tools} == {
        "openai-chat-odd.json": ["write_file", "frobnicate", "read_file"],
        "anthropic.json": ["web_search"],
        "anthropic.jsonl": ["web_search"],
        "hermes-export.jsonl": ["execute_code"],
        "hermes-state.json": ["execute_code"],
        "claude-code.jsonl": ["Task"],
        "codex-rollout.jsonl": ["update_plan"],
        "simple.jsonl": ["paint"],
    }


def test_every_profile_is_documented_with_every_tool_and_argument():
    page = (Path(__file__).parents[3] / "docs" / "replay.md").read_text()
    parts = page.split("\n### ")[1:]
    sections = {name: part for part in parts for name in PROFILES if f"`{name}`" in part.splitlines()[0]}

    assert set(sections) == set(PROFILES)
    for name, profile in PROFILES.items():
        for tool, rule in profile.items():
            assert f"`{tool}`" in sections[name]
            for argument in rule.steps if isinstance(rule, Rule) else ():
                assert f"`{argument}`" in sections[name], (name, tool, argument)


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_profiles_of_every_format_are_documented(format_name):
    page = (Path(__file__).parents[3] / "docs" / "replay.md").read_text()
    names = ", ".join(f"`{name}`" for name in PROFILES_OF_FORMAT[format_name])

    assert f"| `{format_name}` | {names} |" in page

"""What the tools of known agents are called, what their arguments mean, and which of ours they are.

Names match exactly, with case. An argument that a profile does not know makes the call one that nothing maps
to: guessing would run something else than what was recorded. docs/replay.md has the same tables for readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from budgets.call import JsonValue
from executor.recordings import conversions as take
from executor.recordings.conversions import Step, ignored, only, to
from executor.recordings.recording import FormatName
from executor.tools.registry import TOOLS

ProfileName = Literal[
    "remit", "hermes", "mini-swe-agent", "claude-code", "codex", "gemini", "opencode", "text-editor"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One recorded tool as one of ours.

    Attributes:
        steps: By recorded argument, in the order in which they are taken.
        fixed: Arguments of ours that it always has.
        passes_all: Whether arguments go through under their own names; ours judges them.
    """

    target: str
    steps: Mapping[str, Step] = field(default_factory=dict)
    fixed: Mapping[str, JsonValue] = field(default_factory=dict)
    passes_all: bool = False


Choice = Callable[[Mapping[str, JsonValue]], Rule | None]
Profile = Mapping[str, Rule | Choice]

_OURS: Final[Profile] = {name: Rule(target=name, passes_all=True) for name in TOOLS}

_MINI_SWE_AGENT: Final[Profile] = {
    "bash": Rule(target="terminal", steps={"command": to("command", take.command)})
}

_CLAUDE_CODE: Final[Profile] = {
    "Bash": Rule(
        target="terminal",
        steps={
            "command": to("command"),
            "timeout": to("timeout", take.seconds_from_milliseconds),
            "description": ignored,
            "run_in_background": only(False),
            "dangerouslyDisableSandbox": ignored,
        },
    ),
    "Write": Rule(target="write_file", steps={"file_path": to("path"), "content": to("content")}),
    "Edit": Rule(
        target="patch",
        fixed={"mode": "replace"},
        steps={
            "file_path": to("path"),
            "old_string": to("old_string"),
            "new_string": to("new_string"),
            "replace_all": to("replace_all"),
        },
    ),
    "MultiEdit": Rule(
        target="patch", fixed={"mode": "replace"}, steps={"file_path": to("path"), "edits": take.one_edit}
    ),
    "Read": Rule(
        target="read_file",
        steps={
            "file_path": to("path"),
            "offset": to("offset"),
            "limit": to("limit", take.at_most(take.MOST_LINES)),
        },
    ),
    "Glob": Rule(
        target="search_files", fixed={"target": "files"}, steps={"pattern": to("pattern"), "path": to("path")}
    ),
    "Grep": Rule(
        target="search_files",
        fixed={"target": "content", "output_mode": "files_only"},
        steps={
            "pattern": to("pattern"),
            "path": to("path"),
            "glob": to("file_glob"),
            "type": take.file_type,
            "output_mode": to("output_mode", take.output_mode),
            "-i": take.ignore_case,
            "-n": ignored,
            "-A": take.context_at_least,
            "-B": take.context_at_least,
            "-C": take.context_at_least,
            "context": take.context_at_least,
            "head_limit": to("limit", take.at_most(take.MOST_RESULTS)),
            "offset": to("offset"),
            "multiline": only(False),
        },
    ),
    "LS": Rule(target="list_files", steps={"path": to("path"), "ignore": only([])}),
}

_CODEX_DISPLAY: Final[Mapping[str, Step]] = {
    "justification": ignored,
    "login": ignored,
    "max_output_tokens": ignored,
    "prefix_rule": ignored,
    "sandbox_permissions": ignored,
    "shell": ignored,
    "tty": only(False),
    "with_escalated_permissions": ignored,
    "yield_time_ms": ignored,
}
_CODEX_SHELL: Final = Rule(
    target="terminal",
    steps={
        "cmd": to("command", take.command),
        "command": to("command", take.command),
        "workdir": to("workdir"),
        "working_directory": to("workdir"),
        "timeout": to("timeout", take.seconds_from_milliseconds),
        "timeout_ms": to("timeout", take.seconds_from_milliseconds),
        "type": only("exec"),
        "env": only({}),
        "user": ignored,
        **_CODEX_DISPLAY,
    },
)


def _patch_found_in(text: str) -> Rule:
    steps: dict[str, Step] = dict.fromkeys(_CODEX_SHELL.steps, ignored)
    steps |= {"workdir": take.rebase_patch, "working_directory": take.rebase_patch}
    return Rule(target="patch", fixed={"mode": "patch", "patch": text}, steps=steps)


def _codex_shell(arguments: Mapping[str, JsonValue]) -> Rule:
    text = take.patch_in_command(arguments.get("command", arguments.get("cmd")))
    return _CODEX_SHELL if text is None else _patch_found_in(text)


_CODEX: Final[Profile] = {
    "exec_command": _codex_shell,
    "shell": _codex_shell,
    "shell_command": _codex_shell,
    "container.exec": _codex_shell,
    "local_shell": _codex_shell,
    "apply_patch": Rule(
        target="patch",
        fixed={"mode": "patch"},
        steps={"input": to("patch"), "patch": to("patch"), "command": to("patch")},
    ),
}

_GEMINI_LISTING: Final[Mapping[str, Step]] = {
    "file_filtering_options": ignored,
    "respect_git_ignore": ignored,
    "respect_gemini_ignore": ignored,
}
_GEMINI_REPLACE: Final = Rule(
    target="patch",
    fixed={"mode": "replace"},
    steps={
        "file_path": to("path"),
        "old_string": to("old_string"),
        "new_string": to("new_string"),
        "replace_all": to("replace_all"),
        "allow_multiple": to("replace_all"),
        "expected_replacements": only(1),
        "instruction": ignored,
        "modified_by_user": only(False),
    },
)
_GEMINI_SEARCH: Final = Rule(
    target="search_files",
    fixed={"target": "content"},
    steps={
        "pattern": to("pattern"),
        "path": to("path"),
        "dir_path": to("path"),
        "include": to("file_glob"),
        "include_pattern": to("file_glob"),
        "glob": to("file_glob"),
        "limit": to("limit", take.at_most(take.MOST_RESULTS)),
        "total_max_matches": to("limit", take.at_most(take.MOST_RESULTS)),
        **_GEMINI_LISTING,
    },
)
_GEMINI: Final[Profile] = {
    "run_shell_command": Rule(
        target="terminal",
        steps={
            "command": to("command"),
            "directory": to("workdir"),
            "dir_path": to("workdir"),
            "timeout": to("timeout", take.seconds_from_milliseconds),
            "description": ignored,
            "is_background": only(False),
        },
    ),
    "write_file": Rule(target="write_file", steps={"file_path": to("path"), "content": to("content")}),
    "replace": _GEMINI_REPLACE,
    "edit": _GEMINI_REPLACE,
    "read_file": Rule(
        target="read_file",
        steps={
            "file_path": to("path"),
            "absolute_path": to("path"),
            "offset": to("offset", take.line_from_zero),
            "start_line": to("offset"),
            "end_line": take.last_line,
            "limit": to("limit", take.at_most(take.MOST_LINES)),
        },
    ),
    "list_directory": Rule(
        target="list_files",
        steps={"path": to("path"), "dir_path": to("path"), "ignore": only([]), **_GEMINI_LISTING},
    ),
    "glob": Rule(
        target="search_files",
        fixed={"target": "files"},
        steps={
            "pattern": to("pattern"),
            "path": to("path"),
            "dir_path": to("path"),
            "case_sensitive": ignored,
            **_GEMINI_LISTING,
        },
    ),
    "grep_search": _GEMINI_SEARCH,
    "search_file_content": _GEMINI_SEARCH,
}

_OPENCODE: Final[Profile] = {
    "bash": Rule(
        target="terminal",
        steps={
            "command": to("command"),
            "timeout": to("timeout", take.seconds_from_milliseconds),
            "workdir": to("workdir"),
            "description": ignored,
        },
    ),
    "write": Rule(target="write_file", steps={"filePath": to("path"), "content": to("content")}),
    "edit": Rule(
        target="patch",
        fixed={"mode": "replace"},
        steps={
            "filePath": to("path"),
            "oldString": to("old_string"),
            "newString": to("new_string"),
            "replaceAll": to("replace_all"),
        },
    ),
    "read": Rule(
        target="read_file",
        steps={"filePath": to("path"), "limit": to("limit", take.at_most(take.MOST_LINES))},
    ),
    "grep": Rule(
        target="search_files",
        fixed={"target": "content"},
        steps={"pattern": to("pattern"), "path": to("path"), "include": to("file_glob")},
    ),
    "glob": Rule(
        target="search_files", fixed={"target": "files"}, steps={"pattern": to("pattern"), "path": to("path")}
    ),
    "list": Rule(target="list_files", steps={"path": to("path"), "ignore": only([])}),
}

_EDITOR_COMMANDS: Final[Mapping[str, Rule]] = {
    "view": Rule(
        target="read_file", steps={"command": ignored, "path": to("path"), "view_range": take.line_range}
    ),
    "create": Rule(
        target="write_file", steps={"command": ignored, "path": to("path"), "file_text": to("content")}
    ),
    "str_replace": Rule(
        target="patch",
        fixed={"mode": "replace", "new_string": ""},
        steps={
            "command": ignored,
            "path": to("path"),
            "old_str": to("old_string"),
            "new_str": to("new_string"),
        },
    ),
}


def _editor(arguments: Mapping[str, JsonValue]) -> Rule | None:
    chosen = arguments.get("command")
    return _EDITOR_COMMANDS.get(chosen) if isinstance(chosen, str) else None


_TEXT_EDITOR: Final[Profile] = {
    "bash": Rule(target="terminal", steps={"command": to("command"), "restart": only(False)}),
    "str_replace_editor": _editor,
    "str_replace_based_edit_tool": _editor,
}

PROFILES: Final[Mapping[ProfileName, Profile]] = {
    "remit": _OURS,
    "hermes": _OURS,
    "mini-swe-agent": _MINI_SWE_AGENT,
    "claude-code": _CLAUDE_CODE,
    "codex": _CODEX,
    "gemini": _GEMINI,
    "opencode": _OPENCODE,
    "text-editor": _TEXT_EDITOR,
}

# Which profiles a format is read with unless the user names others; the first that knows name and
# arguments counts.
# opencode is in none: its bash counts its timeout in milliseconds, under a name that others share.
PROFILES_OF_FORMAT: Final[Mapping[FormatName, tuple[ProfileName, ...]]] = {
    "openai-chat": ("remit", "mini-swe-agent", "codex", "gemini", "claude-code", "text-editor"),
    "anthropic": ("remit", "claude-code", "text-editor", "mini-swe-agent"),
    "mini-swe-agent": ("mini-swe-agent",),
    "hermes-session": ("hermes",),
    "claude-code": ("claude-code", "remit"),
    "codex-rollout": ("codex", "remit"),
    "simple": ("remit",),
}

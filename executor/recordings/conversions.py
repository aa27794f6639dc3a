"""How one recorded argument becomes ours: small steps that profiles are made of.

A step that finds a value with no counterpart raises ``NoCounterpart``; the call is then refused, not bent.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Final

from budgets.call import JsonValue
from executor.recordings.values import dumped, elements, member

Draft = dict[str, JsonValue]
Step = Callable[[Draft, JsonValue], None]
Convert = Callable[[JsonValue], JsonValue]

LONGEST_TIMEOUT_SECONDS: Final = 600
MOST_LINES: Final = 2000
MOST_RESULTS: Final = 1000
_TYPE_GLOBS: Final[Mapping[str, str]] = {
    "c": "*.c",
    "css": "*.css",
    "go": "*.go",
    "html": "*.html",
    "java": "*.java",
    "js": "*.js",
    "json": "*.json",
    "md": "*.md",
    "py": "*.py",
    "rust": "*.rs",
    "sh": "*.sh",
    "toml": "*.toml",
    "ts": "*.ts",
}
_OUTPUT_MODES: Final[Mapping[str, str]] = {
    "content": "content",
    "files_with_matches": "files_only",
    "count": "count",
}
_PATCH_COMMAND: Final = re.compile(
    r"\s*(?:apply_patch|applypatch)\s*<<\s*(['\"]?)(?P<mark>[A-Za-z_]\w*)\1[ \t]*\n"
    r"(?P<text>.*?)\n(?P=mark)\s*",
    re.DOTALL,
)
_PATCHED_FILE: Final = re.compile(
    r"^(\*\*\* (?:Add File|Update File|Delete File|Move to): )(?!/)", re.MULTILINE
)


class NoCounterpart(ValueError):
    """A recorded value means something that our tools cannot do."""


def same(value: JsonValue) -> JsonValue:
    """Take a value as it is."""
    return value


def to(name: str, convert: Convert = same) -> Step:
    """Put the value under our name."""

    def step(draft: Draft, value: JsonValue) -> None:
        draft[name] = convert(value)

    return step


def ignored(_draft: Draft, _value: JsonValue) -> None:
    """Leave out what changes nothing here: a description, a display option."""


def only(*accepted: JsonValue) -> Step:
    """Leave the argument out if it says what we do anyway; any other value has no counterpart."""

    def step(_draft: Draft, value: JsonValue) -> None:
        if value not in accepted:
            raise NoCounterpart(f"the value {shown(value)} has no counterpart")

    return step


def command(value: JsonValue) -> JsonValue:
    """Turn an argument vector into shell text that means the same; text stays as it is."""
    if isinstance(value, str):
        return value
    words = elements(value)
    texts = [word for word in words if isinstance(word, str)]
    if not texts or len(texts) != len(words):
        raise NoCounterpart(f"a command is text or a list of texts, not {shown(value)}")
    return shlex.join(texts)


def seconds_from_milliseconds(value: JsonValue) -> JsonValue:
    """Round milliseconds up to whole seconds, at most what a command may have here."""
    return _whole_seconds(_number(value) / 1000)


def seconds(value: JsonValue) -> JsonValue:
    """Round seconds up to whole ones, at most what a command may have here."""
    return _whole_seconds(_number(value))


def line_from_zero(value: JsonValue) -> JsonValue:
    """Turn a line number that counts from 0 into one that counts from 1."""
    return int(_number(value)) + 1


def at_most(maximum: int) -> Convert:
    """Cut a number to the most that we give."""

    def convert(value: JsonValue) -> JsonValue:
        return min(int(_number(value)), maximum)

    return convert


def output_mode(value: JsonValue) -> JsonValue:
    """Translate what a search shall print."""
    if isinstance(value, str) and value in _OUTPUT_MODES:
        return _OUTPUT_MODES[value]
    raise NoCounterpart(f"the value {shown(value)} has no counterpart")


def ignore_case(draft: Draft, value: JsonValue) -> None:
    """Make the pattern of the draft ignore case."""
    pattern = draft.get("pattern")
    if value is True and isinstance(pattern, str):
        draft["pattern"] = f"(?i){pattern}"


def context_at_least(draft: Draft, value: JsonValue) -> None:
    """Show at least that many lines around a match: ours are the same before and after."""
    before = draft.get("context")
    wanted = int(_number(value))
    draft["context"] = min(max(wanted, before if isinstance(before, int) else 0), 20)


def file_type(draft: Draft, value: JsonValue) -> None:
    """Turn a ripgrep type into a glob, unless a glob was given too."""
    glob = _TYPE_GLOBS.get(value) if isinstance(value, str) else None
    if glob is None or "file_glob" in draft:
        raise NoCounterpart(f"the value {shown(value)} has no counterpart")
    draft["file_glob"] = glob


def one_edit(draft: Draft, value: JsonValue) -> None:
    """Take a list of edits if it holds exactly one; several at once have no counterpart."""
    edits = elements(value)
    if len(edits) != 1:
        raise NoCounterpart(f"{len(edits)} edits in one call; patch replaces one text a call")
    draft["old_string"], draft["new_string"] = member(edits[0], "old_string"), member(edits[0], "new_string")
    if member(edits[0], "replace_all") is True:
        draft["replace_all"] = True


def line_range(draft: Draft, value: JsonValue) -> None:
    """Turn ``[first, last]`` (last -1: to the end) into offset and limit."""
    bounds = [bound for bound in elements(value) if isinstance(bound, int) and not isinstance(bound, bool)]
    if len(bounds) != 2:
        raise NoCounterpart(f"a range is two line numbers, not {shown(value)}")
    draft["offset"] = bounds[0]
    if bounds[1] != -1:
        last_line(draft, bounds[1])


def last_line(draft: Draft, value: JsonValue) -> None:
    """Turn the number of the last line into a limit, counted from the draft's offset."""
    offset = draft.get("offset")
    first = offset if isinstance(offset, int) else 1
    draft["limit"] = min(max(int(_number(value)) - first + 1, 1), MOST_LINES)


def patch_in_command(value: JsonValue) -> str | None:
    """Find the patch in a command that is nothing but a call of Codex' own ``apply_patch``, or None.

    Codex takes such commands for itself before any shell sees them.
    """
    words = elements(value)
    if len(words) == 2 and words[0] in ("apply_patch", "applypatch") and isinstance(words[1], str):
        return words[1]
    if len(words) == 3 and words[0] in ("bash", "sh", "zsh") and words[1] in ("-lc", "-c"):
        value = words[2]
    found = _PATCH_COMMAND.fullmatch(value) if isinstance(value, str) else None
    return found.group("text") if found else None


def rebase_patch(draft: Draft, value: JsonValue) -> None:
    """Name the files of the draft's patch from the workspace instead of from a working directory."""
    text = draft.get("patch")
    if not isinstance(value, str) or not value or "\n" in value or not isinstance(text, str):
        raise NoCounterpart(f"the value {shown(value)} has no counterpart")
    directory = value.rstrip("/") + "/"
    draft["patch"] = _PATCHED_FILE.sub(lambda found: found.group(1) + directory, text)


def shown(value: JsonValue) -> str:
    """Show a value in a reason, short and in ASCII."""
    text = dumped(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _whole_seconds(value: float) -> int:
    return max(1, min(math.ceil(value), LONGEST_TIMEOUT_SECONDS))


def _number(value: JsonValue) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 2**53:
        raise NoCounterpart(f"a number is needed, not {shown(value)}")
    return value

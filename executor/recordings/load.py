"""Load a recording in whichever of the known formats it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal, get_args

from budgets.call import JsonValue
from executor.recordings import anthropic, claude_code, codex, hermes, mini_swe_agent, openai_chat, simple
from executor.recordings.errors import RecordingInvalid
from executor.recordings.recording import FormatName, Recording, RecordingBuilder
from executor.recordings.source import Located, RecordingFile, look_at
from executor.recordings.values import dumped

# Agents open their session files with settings and prompts; a first tool call may stand far below.
_LOOKED_AT: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class _Format:
    recognises: Callable[[JsonValue], bool]
    parse: Callable[[Iterable[Located], RecordingBuilder], None]


# In order: a later one would also accept some of what an earlier one knows better.
_FORMATS: Final[Mapping[FormatName, _Format]] = {
    "codex-rollout": _Format(recognises=codex.recognises, parse=codex.parse),
    "claude-code": _Format(recognises=claude_code.recognises, parse=claude_code.parse),
    "mini-swe-agent": _Format(recognises=mini_swe_agent.recognises, parse=mini_swe_agent.parse),
    "hermes-session": _Format(recognises=hermes.recognises, parse=hermes.parse),
    "anthropic": _Format(recognises=anthropic.recognises, parse=anthropic.parse),
    "openai-chat": _Format(recognises=openai_chat.recognises, parse=openai_chat.parse),
    "simple": _Format(recognises=simple.recognises, parse=simple.parse),
}

FORMATS: Final[tuple[FormatName, ...]] = get_args(FormatName)


def load_recording(
    path: Path,
    format: FormatName | Literal["auto"] = "auto",  # noqa: A002 - the field's word
) -> Recording:
    """Read a recording; ``auto`` tells its format by its content, never by its name.

    Every tool call in the file is in the result, in order, also those whose arguments are no JSON.

    Raises:
        RecordingInvalid: It cannot be read, is none of the known formats, or breaks the one it is in.
    """
    if format != "auto" and format not in _FORMATS:
        hint = f"one of auto, {', '.join(FORMATS)}"
        raise RecordingInvalid(f"unknown format {format!a}", source=ascii(str(path))[1:-1], hint=hint)
    file = look_at(path)
    name: FormatName = _detect(file) if format == "auto" else format
    builder = RecordingBuilder(source=file.name, format=name)
    _FORMATS[name].parse(file.records(), builder)
    return builder.build()


def _detect(file: RecordingFile) -> FormatName:
    first = list(islice(file.records(), _LOOKED_AT))
    for name, known in _FORMATS.items():
        if any(known.recognises(record.value) for record in first):
            return name
    hint = f"known formats: {', '.join(FORMATS)}; name one with --format"
    seen = dumped(first[0].value) if first else None
    raise RecordingInvalid("no known format", source=file.name, seen=seen, hint=hint)

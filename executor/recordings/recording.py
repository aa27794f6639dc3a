"""What was recorded of one run of a model: its tool calls in order, and who answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from budgets.call import JsonValue
from budgets.route import RouteEvidence
from executor.recordings.errors import RecordingInvalid
from executor.recordings.values import dumped, parse_json, printable

FormatName = Literal[
    "openai-chat", "anthropic", "mini-swe-agent", "hermes-session", "claude-code", "codex-rollout", "simple"
]

MAX_CALLS: Final = 100_000
_MAX_ARGUMENT_DEPTH: Final = 64
_MAX_NAME_CHARACTERS: Final = 256
_KEPT_OUTPUT_CHARACTERS: Final = 16 * 1024
_MAX_NOTES: Final = 100
_SELF_LOG_TIER: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedCall:
    """One tool call as the model made it.

    Attributes:
        index: Position among all calls of the recording, from 0.
        arguments: None when what was recorded is no JSON object.
        raw_arguments: What was recorded instead, where ``arguments`` is None.
        turn: Which answer of the model it belongs to, from 0.
        recorded_output: Beginning of what the model was told, where the recording has it.
        where: Its place in the file.
    """

    index: int
    tool: str
    arguments: Mapping[str, JsonValue] | None
    raw_arguments: str = ""
    client_call_id: str | None = None
    turn: int
    recorded_output: str | None = None
    recorded_exit_code: int | None = None
    where: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A whole recording.

    Attributes:
        turns: How many answers of a model are in it, with or without calls.
        cwd: Where the recorded agent worked, if the recording says.
        notes: What a reader should know: duplicates left out, replies that ran nothing, subagents.
    """

    format: FormatName
    calls: tuple[RecordedCall, ...]
    route: tuple[RouteEvidence, ...]
    turns: int
    cwd: str | None = None
    notes: tuple[str, ...] = ()

    def notes_at(self, mount: str) -> tuple[str, ...]:
        """Give the notes, with one more if the agent knew its folder by another name than ``mount``."""
        if self.cwd is None or self.cwd.rstrip("/") == mount:
            return self.notes
        name = printable(self.cwd[:_MAX_NAME_CHARACTERS])
        hint = f"recorded in {name}, mounted as {mount}: absolute paths will lie outside; see scope.mount"
        return (*self.notes, hint)


class RecordingBuilder:
    """Collects one recording while a parser walks its file."""

    def __init__(self, *, source: str, format: FormatName) -> None:  # noqa: A002 - the field's word
        self.source = source
        self.turns = 0
        self.cwd: str | None = None
        self._format: FormatName = format
        self._calls: list[RecordedCall] = []
        self._open: dict[str, int] = {}
        self._route: list[RouteEvidence] = []
        self._notes: list[str] = []
        self._notes_left_out = 0

    def call(self, *, tool: JsonValue, arguments: JsonValue, client_call_id: JsonValue, where: str) -> None:
        """Add a call whose arguments are a JSON object, or JSON text of one.

        Raises:
            RecordingInvalid: It has no usable name.
        """
        read = _read_arguments(arguments)
        raw = "" if read is not None else printable(_as_text(arguments))
        self._add(tool, read, raw, client_call_id, where)

    def freeform(self, *, tool: JsonValue, text: JsonValue, client_call_id: JsonValue, where: str) -> None:
        """Add a call whose input is plain text; it becomes the argument ``input``."""
        read = _read_arguments({"input": text}) if isinstance(text, str) else None
        raw = "" if read is not None else printable(_as_text(text))
        self._add(tool, read, raw, client_call_id, where)

    def output(self, client_call_id: JsonValue, text: str | None, *, exit_code: int | None = None) -> None:
        """Give the latest call of that id what the model was told; an id that no call has is ignored."""
        index = self._open.pop(client_call_id, None) if isinstance(client_call_id, str) else None
        if index is not None:
            self.answer(index, text, exit_code=exit_code)

    def answer(self, index: int, text: str | None, *, exit_code: int | None = None) -> None:
        """Give the call at ``index`` what the model was told."""
        kept = None if text is None else printable(text[:_KEPT_OUTPUT_CHARACTERS])
        self._calls[index] = replace(self._calls[index], recorded_output=kept, recorded_exit_code=exit_code)

    def route(
        self,
        *,
        requested_model: JsonValue = None,
        served_model: JsonValue = None,
        served_provider: JsonValue = None,
        fallback: bool = False,
        turn: int | None = None,
    ) -> None:
        """Note who answered a turn (the current one by default), as the agent's own record has it."""
        evidence = RouteEvidence(
            turn=self.turns - 1 if turn is None else turn,
            tier=_SELF_LOG_TIER,
            source=self._format,
            requested_model=_name(requested_model),
            served_provider=_name(served_provider),
            served_model=_name(served_model),
            fallback=fallback,
        )
        self._route.append(evidence)

    def note(self, text: str) -> None:
        """Keep a remark for the reader, bounded in number."""
        if len(self._notes) >= _MAX_NOTES:
            self._notes_left_out += 1
            return
        self._notes.append(printable(text))

    def problem(
        self, problem: str, *, where: str, seen: JsonValue = None, hint: str | None = None
    ) -> RecordingInvalid:
        """Make the error for something at ``where`` that cannot be read."""
        shown = None if seen is None else _as_text(seen)
        return RecordingInvalid(problem, source=self.source, where=where, seen=shown, hint=hint)

    @property
    def calls(self) -> Sequence[RecordedCall]:
        """The calls so far."""
        return self._calls

    def build(self) -> Recording:
        """Give what was collected."""
        notes = list(self._notes)
        if self._notes_left_out:
            notes.append(f"{self._notes_left_out} more notes of this kind")
        return Recording(
            format=self._format,
            calls=tuple(self._calls),
            route=tuple(self._route),
            turns=self.turns,
            cwd=self.cwd,
            notes=tuple(notes),
        )

    def _add(
        self,
        tool: JsonValue,
        arguments: Mapping[str, JsonValue] | None,
        raw: str,
        client_call_id: JsonValue,
        where: str,
    ) -> None:
        if not isinstance(tool, str) or not tool or len(tool) > _MAX_NAME_CHARACTERS:
            hint = "every tool call needs a name; none is left out silently"
            raise self.problem("a tool call without a usable name", where=where, seen=tool, hint=hint)
        if len(self._calls) >= MAX_CALLS:
            raise self.problem(f"more than {MAX_CALLS} tool calls", where=where, hint="split the recording")
        identity = _name(client_call_id)
        if isinstance(client_call_id, str):
            self._open[client_call_id] = len(self._calls)
        call = RecordedCall(
            index=len(self._calls),
            tool=printable(tool),
            arguments=arguments,
            raw_arguments=raw,
            client_call_id=identity,
            turn=max(self.turns - 1, 0),
            where=where,
        )
        self._calls.append(call)


def _read_arguments(value: JsonValue) -> Mapping[str, JsonValue] | None:
    # Agents send nothing at all for a tool without arguments, and run it with {}.
    if value is None or value == "":
        return {}
    read = parse_json(value) if isinstance(value, str) else value
    return read if isinstance(read, Mapping) and _is_sound(read) else None


def _is_sound(value: JsonValue) -> bool:
    """Whether a value can be written down again: not too deep, finite numbers, text that is Unicode."""
    pending: list[tuple[JsonValue, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > _MAX_ARGUMENT_DEPTH:
            return False
        if isinstance(item, str) and not _is_unicode(item):
            return False
        if isinstance(item, float) and not math.isfinite(item):
            return False
        if isinstance(item, Mapping):
            pending += [(each, depth + 1) for pair in item.items() for each in pair]
        elif isinstance(item, Sequence) and not isinstance(item, str):
            pending += [(each, depth + 1) for each in item]
    return True


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else dumped(value)


def _name(value: JsonValue) -> str | None:
    return printable(value[:_MAX_NAME_CHARACTERS]) if isinstance(value, str) and value else None

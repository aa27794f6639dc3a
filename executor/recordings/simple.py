"""Our own recording: JSON Lines of ``{"tool": …, "arguments": {…}, "id": …}``, one call a line.

``turn`` groups calls that the model made at once; without it every call is a turn of its own. ``output`` and
``exit_code`` are what the model was told then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from budgets.call import JsonValue
from executor.recordings.recording import RecordingBuilder
from executor.recordings.source import Located
from executor.recordings.values import elements, member

_KNOWN: Final = frozenset({"tool", "arguments", "id", "turn", "output", "exit_code"})


def recognises(value: JsonValue) -> bool:
    """Whether a value is a call of this form, or a list that begins with one."""
    first = elements(value)[:1]
    candidate = first[0] if first else value
    return (
        isinstance(member(candidate, "tool"), str) and isinstance(candidate, dict) and not _unknown(candidate)
    )


def parse(records: Iterable[Located], builder: RecordingBuilder) -> None:
    """Read every call.

    Raises:
        RecordingInvalid: A line is no call, or has a member that this format does not know.
    """
    last: JsonValue = None
    for record in records:
        listed = elements(record.value)
        values = listed or [record.value]
        for number, value in enumerate(values):
            where = f"[{number}]" if listed else record.where or "line 1"
            last = _parse_call(value, where, last, builder)


def _parse_call(value: JsonValue, where: str, last_turn: JsonValue, builder: RecordingBuilder) -> JsonValue:
    if not isinstance(value, dict) or "tool" not in value or _unknown(value):
        hint = 'one call a line: {"tool": "write_file", "arguments": {…}}, with id, turn, output, exit_code'
        raise builder.problem("not a call", where=where, seen=value, hint=hint)
    turn = value.get("turn")
    if turn is None or turn != last_turn:
        builder.turns += 1
    builder.call(
        tool=value["tool"], arguments=value.get("arguments"), client_call_id=value.get("id"), where=where
    )
    output, exit_code = value.get("output"), value.get("exit_code")
    told = output if isinstance(output, str) else None
    if told is not None or exit_code is not None:
        builder.answer(len(builder.calls) - 1, told, exit_code=_integer(exit_code))
    return turn


def _unknown(value: dict[str, JsonValue]) -> bool:
    return not _KNOWN.issuperset(value)


def _integer(value: JsonValue) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""Hermes sessions: ``hermes sessions export`` (one a line), or a JSON dump of the tables of ``state.db``.

Hermes keeps the model it asked for, not the one that answered, and keeps it by session, not by message. The
best it has is ``session_model_usage``: one row for each model, provider and side task, with how many calls it
answered. A session without it names only the route that answered first, so its later turns have no evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from budgets.call import JsonValue
from executor.recordings.exit_codes import exit_code_of
from executor.recordings.openai_chat import parse_tool_calls
from executor.recordings.recording import RecordingBuilder
from executor.recordings.source import Located
from executor.recordings.values import elements, member, parse_json, text_of

_SESSION_MEMBERS: Final = frozenset(
    {
        "source",
        "started_at",
        "billing_provider",
        "model_config",
        "message_count",
        "tool_call_count",
        "api_call_count",
    }
)


def recognises(value: JsonValue) -> bool:
    """Whether a value is an exported session or a dump of the tables."""
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return False
    if isinstance(value.get("sessions"), list):
        return True
    return isinstance(value.get("id"), str) and not _SESSION_MEMBERS.isdisjoint(value)


def parse(records: Iterable[Located], builder: RecordingBuilder) -> None:
    """Read every session.

    Raises:
        RecordingInvalid: A session has no messages, or a tool call has no name.
    """
    for record in records:
        messages = member(record.value, "messages")
        if not isinstance(record.value, dict) or not isinstance(messages, list):
            hint = "one exported session a line, each with its messages"
            raise builder.problem(
                "not a session", where=record.where or "line 1", seen=record.value, hint=hint
            )
        sessions = elements(record.value.get("sessions")) or [record.value]
        builder.cwd = builder.cwd or _cwd(sessions)
        first_turn = builder.turns
        for number, message in enumerate(messages):
            _parse_message(message, f"{record.where} messages[{number}]".strip(), builder)
        _note_routes(record.value, sessions, first_turn, builder)
        if len(sessions) > 1:
            builder.note(f"{len(sessions)} sessions in one recording (subagents or a split history)")


def _parse_message(message: JsonValue, where: str, builder: RecordingBuilder) -> None:
    role = member(message, "role")
    if not isinstance(message, dict) or not isinstance(role, str):
        raise builder.problem("a message without a role", where=where, seen=message)
    if role == "assistant":
        builder.turns += 1
        parse_tool_calls(_with_listed_calls(message, where, builder), where, builder)
    elif role == "tool":
        told = text_of(message.get("content"))
        builder.output(message.get("tool_call_id"), told, exit_code=exit_code_of(told))


def _with_listed_calls(
    message: dict[str, JsonValue], where: str, builder: RecordingBuilder
) -> dict[str, JsonValue]:
    calls = message.get("tool_calls")
    if not isinstance(calls, str) or not calls:
        return message
    listed = parse_json(calls)
    if not isinstance(listed, list):
        hint = "in the table this column is JSON text of a list; was the dump shortened?"
        raise builder.problem("tool_calls is not a list", where=where, seen=calls, hint=hint)
    return {**message, "tool_calls": listed}


def _note_routes(
    record: Mapping[str, JsonValue], sessions: Sequence[JsonValue], first_turn: int, builder: RecordingBuilder
) -> None:
    rows = sorted(elements(record.get("session_model_usage")), key=_first_seen)
    if not rows:
        for session in sessions:
            if first_turn < builder.turns and member(session, "billing_provider") is not None:
                _note_route(session, first_turn, builder, fallback=False)
        return
    turn, main = first_turn, [row for row in rows if not member(row, "task")]
    for row in rows:
        if member(row, "task"):
            _note_route(row, first_turn, builder, fallback=False)
            continue
        # A second route for the same work means that the first one did not answer all of it.
        fallback = _route_of(row) != _route_of(main[0])
        count = member(row, "api_call_count")
        answered = count if isinstance(count, int) else 0
        for _ in range(min(answered, builder.turns - turn)):
            _note_route(row, turn, builder, fallback=fallback)
            turn += 1


def _note_route(row: JsonValue, turn: int, builder: RecordingBuilder, *, fallback: bool) -> None:
    model, provider = member(row, "model"), member(row, "billing_provider")
    if provider == "auto":
        # What a side task asked for, not who answered it.
        provider = None
    builder.route(requested_model=model, served_provider=provider, fallback=fallback, turn=turn)


def _route_of(row: JsonValue) -> tuple[JsonValue, JsonValue, JsonValue]:
    return member(row, "model"), member(row, "billing_provider"), member(row, "billing_base_url")


def _first_seen(row: JsonValue) -> float:
    seen = member(row, "first_seen")
    return seen if isinstance(seen, (int, float)) else 0


def _cwd(sessions: Sequence[JsonValue]) -> str | None:
    named = [member(session, "cwd") for session in sessions]
    return next((cwd for cwd in named if isinstance(cwd, str)), None)

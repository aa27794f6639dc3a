"""OpenAI chat messages with ``tool_calls``.

Read are a list of messages, an object with ``messages``, and JSON Lines of either. Where lines are requests
with a growing history, as a logging proxy writes them, what a line repeats from the line before counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from budgets.call import JsonValue
from executor.recordings.exit_codes import exit_code_of
from executor.recordings.recording import RecordingBuilder
from executor.recordings.source import Located
from executor.recordings.values import elements, member, text_of

_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_FOREIGN_BLOCKS: Final = frozenset({"tool_use", "tool_result"})


def recognises(value: JsonValue) -> bool:
    """Whether a value is a chat message, a list of them, or an object with a list of them."""
    messages = member(value, "messages") if isinstance(value, dict) and "messages" in value else value
    if isinstance(messages, list):
        return bool(messages) and all(_is_message(message) for message in messages)
    return _is_message(messages)


def parse(records: Iterable[Located], builder: RecordingBuilder) -> None:
    """Read every message of every record in order.

    Raises:
        RecordingInvalid: Something in it is no chat message, or a tool call has no name.
    """
    before: Sequence[JsonValue] = ()
    for record in records:
        if isinstance(record.value, dict) and "messages" not in record.value:
            parse_message(record.value, record.where or "line 1", builder, requested_model=None)
            continue
        messages = _messages_of(record, builder)
        seen = len(before) if before and list(messages[: len(before)]) == list(before) else 0
        requested = member(record.value, "model") if isinstance(record.value, dict) else None
        for number, message in enumerate(messages[seen:], start=seen):
            where = f"{record.where} messages[{number}]".strip()
            parse_message(message, where, builder, requested_model=requested)
        before = messages


def parse_message(
    message: JsonValue, where: str, builder: RecordingBuilder, *, requested_model: JsonValue
) -> None:
    """Read one message: the calls of an assistant, or what a tool answered.

    Raises:
        RecordingInvalid: It is no chat message.
    """
    if not isinstance(message, dict) or not _is_message(message):
        hint = "each message is an object with a role: system, user, assistant or tool"
        raise builder.problem("not a chat message", where=where, seen=message, hint=hint)
    _refuse_foreign_blocks(message, where, builder)
    role = message["role"]
    if role == "assistant":
        builder.turns += 1
        served = message.get("model")
        if served is not None or requested_model is not None:
            provider = message.get("provider")
            builder.route(requested_model=requested_model, served_model=served, served_provider=provider)
        parse_tool_calls(message, where, builder)
    elif message.get("tool_calls"):
        raise builder.problem(
            f"tool calls in a message of role {role}", where=where, hint="only assistants make calls"
        )
    elif role in {"tool", "function"}:
        told = text_of(message.get("content"))
        builder.output(message.get("tool_call_id") or message.get("name"), told, exit_code=exit_code_of(told))


def parse_tool_calls(message: dict[str, JsonValue], where: str, builder: RecordingBuilder) -> None:
    """Add the calls of one assistant message to the present turn.

    Raises:
        RecordingInvalid: ``tool_calls`` is no list, or one of them has no name.
    """
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise builder.problem("tool_calls is not a list", where=where, seen=calls)
    for number, call in enumerate(elements(calls)):
        place = f"{where} tool_calls[{number}]"
        if isinstance(member(call, "custom"), dict):
            custom = member(call, "custom")
            builder.freeform(
                tool=member(custom, "name"),
                text=member(custom, "input"),
                client_call_id=member(call, "id"),
                where=place,
            )
            continue
        function = member(call, "function")
        builder.call(
            tool=member(function, "name"),
            arguments=member(function, "arguments"),
            client_call_id=member(call, "id"),
            where=place,
        )
    legacy = message.get("function_call")
    if legacy is not None and not calls:
        name = member(legacy, "name")
        builder.call(tool=name, arguments=member(legacy, "arguments"), client_call_id=None, where=where)


def _messages_of(record: Located, builder: RecordingBuilder) -> Sequence[JsonValue]:
    value = record.value
    messages = value if isinstance(value, list) else member(value, "messages")
    if not isinstance(messages, list):
        hint = 'a list of messages, or an object with "messages"'
        raise builder.problem("no list of messages", where=record.where or "line 1", seen=value, hint=hint)
    return messages


def _is_message(value: JsonValue) -> bool:
    role = member(value, "role")
    # The type of a Claude Code or Codex record stands beside such a message, never in it.
    return isinstance(role, str) and role in _ROLES and member(value, "type") in (None, "message")


def _refuse_foreign_blocks(message: dict[str, JsonValue], where: str, builder: RecordingBuilder) -> None:
    for block in elements(message.get("content")):
        kind = member(block, "type")
        if isinstance(kind, str) and kind in _FOREIGN_BLOCKS:
            raise builder.problem(f"a {kind} block", where=where, hint="read it with --format anthropic")

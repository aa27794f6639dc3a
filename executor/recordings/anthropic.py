"""Anthropic messages whose content blocks hold ``tool_use`` and ``tool_result``.

Read are a list of messages, an object with ``messages``, response bodies, and JSON Lines of either. Tools
that the provider ran itself (``server_tool_use``, ``mcp_tool_use``) are calls like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from budgets.call import JsonValue
from executor.recordings.exit_codes import exit_code_of
from executor.recordings.recording import RecordingBuilder
from executor.recordings.source import Located
from executor.recordings.values import elements, member, text_of

CALL_BLOCKS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_ROLES: Final = frozenset({"user", "assistant", "system"})


def recognises(value: JsonValue) -> bool:
    """Whether messages are here and at least one has a block of a tool call or a tool result."""
    messages = _messages(value)
    if messages is None:
        return False
    return any(_is_message(message) and _has_tool_block(message) for message in messages)


def parse(records: Iterable[Located], builder: RecordingBuilder) -> None:
    """Read every message of every record in order.

    Raises:
        RecordingInvalid: Something in it is no message, or a tool call has no name.
    """
    before: list[JsonValue] = []
    for record in records:
        messages = _messages(record.value)
        if messages is None:
            hint = "a message, a list of messages, or an object with messages"
            raise builder.problem("no messages", where=record.where or "line 1", seen=record.value, hint=hint)
        # A log of requests repeats the whole history each time.
        repeated = len(before) if len(messages) > 1 and before and messages[: len(before)] == before else 0
        holder = member(record.value, "model") if "messages" in _members(record.value) else None
        for number, message in enumerate(messages[repeated:], start=repeated):
            _parse_message(message, f"{record.where} messages[{number}]".strip(), builder, holder)
        before = messages


def parse_blocks(content: JsonValue, where: str, builder: RecordingBuilder) -> None:
    """Add the calls, and what they were answered, among a message's content blocks.

    Raises:
        RecordingInvalid: A call has no name.
    """
    for number, block in enumerate(elements(content)):
        kind = member(block, "type")
        if isinstance(kind, str) and kind in CALL_BLOCKS:
            place = f"{where} content[{number}]"
            name, given = _call_name(block), member(block, "input")
            builder.call(tool=name, arguments=given, client_call_id=member(block, "id"), where=place)
        elif isinstance(kind, str) and kind.endswith("tool_result"):
            told = text_of(member(block, "content"))
            builder.output(member(block, "tool_use_id"), told, exit_code=exit_code_of(told))


def _call_name(block: JsonValue) -> JsonValue:
    name, server = member(block, "name"), member(block, "server_name")
    if isinstance(name, str) and isinstance(server, str):
        return f"mcp__{server}__{name}"
    return name


def _parse_message(message: JsonValue, where: str, builder: RecordingBuilder, requested: JsonValue) -> None:
    if not isinstance(message, dict) or not _is_message(message):
        hint = "each message is an object with a role, user or assistant, and content"
        raise builder.problem("not a message", where=where, seen=message, hint=hint)
    if message.get("tool_calls"):
        raise builder.problem(
            "tool_calls in a message", where=where, hint="read it with --format openai-chat"
        )
    if message["role"] == "assistant":
        builder.turns += 1
        served = message.get("model")
        if served is not None or requested is not None:
            builder.route(requested_model=requested, served_model=served)
    parse_blocks(message.get("content"), where, builder)


def _messages(value: JsonValue) -> list[JsonValue] | None:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return None
    inner = value.get("messages")
    if isinstance(inner, list):
        return inner
    return [value] if _is_message(value) else None


def _members(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _is_message(value: JsonValue) -> bool:
    role = member(value, "role")
    return isinstance(role, str) and role in _ROLES and member(value, "type") in (None, "message")


def _has_tool_block(message: JsonValue) -> bool:
    kinds = [member(block, "type") for block in elements(member(message, "content"))]
    return any(
        isinstance(kind, str) and (kind in CALL_BLOCKS or kind.endswith("tool_result")) for kind in kinds
    )

"""Rollouts of Codex (``~/.codex/sessions/…/rollout-*.jsonl``).

A rollout names the configured model and provider and never the model that served: its route evidence has
none. An answer of the model is what lies between two outputs of tools or two messages of the user; rollouts
that keep token usage by response end each answer with such a record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from budgets.call import JsonValue
from executor.recordings.exit_codes import exit_code_of
from executor.recordings.recording import RecordingBuilder
from executor.recordings.source import Located
from executor.recordings.values import member, text_of

_RECORD_TYPES: Final = frozenset({"session_meta", "turn_context", "response_item", "event_msg", "compacted"})
_CALLS: Final = frozenset({"function_call", "custom_tool_call", "local_shell_call"})
_SERVED_ELSEWHERE: Final = frozenset(
    {"web_search_call", "image_generation_call", "tool_search_call", "mcp_tool_call"}
)
_OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output", "local_shell_call_output"})


@dataclass(kw_only=True, slots=True)
class _Rollout:
    """What was seen so far."""

    model: JsonValue = None
    provider: JsonValue = None
    answering: bool = False
    rerouted_to: JsonValue = None


def recognises(value: JsonValue) -> bool:
    """Whether a line is one of a rollout."""
    kind = member(value, "type")
    return isinstance(kind, str) and kind in _RECORD_TYPES and isinstance(member(value, "payload"), dict)


def parse(records: Iterable[Located], builder: RecordingBuilder) -> None:
    """Read every line.

    Raises:
        RecordingInvalid: A line is no record of a rollout, or a tool call has no name.
    """
    rollout = _Rollout()
    for record in records:
        kind, payload = member(record.value, "type"), member(record.value, "payload")
        if not isinstance(kind, str):
            raise builder.problem("a line without a type", where=record.where, seen=record.value)
        if kind == "session_meta":
            rollout.provider = member(payload, "model_provider")
            _note_cwd(payload, builder)
        elif kind == "turn_context":
            rollout.model = member(payload, "model")
            _note_cwd(payload, builder)
        elif kind == "token_usage_record":
            rollout.answering = False
        elif kind == "response_item":
            _parse_item(payload, record.where, rollout, builder)
        elif kind == "event_msg" and member(payload, "type") == "model_reroute":
            rollout.rerouted_to = member(payload, "to_model")
            builder.note(f"{record.where}: rerouted to {rollout.rerouted_to}")


def _parse_item(item: JsonValue, where: str, rollout: _Rollout, builder: RecordingBuilder) -> None:
    kind = member(item, "type")
    if not isinstance(kind, str):
        raise builder.problem("an item without a type", where=where, seen=item)
    if kind in _OUTPUTS:
        rollout.answering = False
        told = _told(member(item, "output"))
        builder.output(member(item, "call_id"), told, exit_code=exit_code_of(told))
    elif kind == "message":
        _parse_message(item, rollout, builder)
    elif kind in _CALLS or kind in _SERVED_ELSEWHERE:
        _answer(rollout, builder)
        _parse_call(item, kind, where, builder)
    elif kind == "reasoning":
        _answer(rollout, builder)


def _parse_message(item: JsonValue, rollout: _Rollout, builder: RecordingBuilder) -> None:
    if member(item, "role") == "assistant":
        _answer(rollout, builder)
    else:
        rollout.answering = False


def _answer(rollout: _Rollout, builder: RecordingBuilder) -> None:
    if rollout.answering:
        return
    rollout.answering = True
    builder.turns += 1
    builder.route(
        requested_model=rollout.model,
        served_provider=rollout.provider,
        served_model=rollout.rerouted_to,
        fallback=rollout.rerouted_to is not None,
    )


def _parse_call(item: JsonValue, kind: str, where: str, builder: RecordingBuilder) -> None:
    identity = member(item, "call_id") or member(item, "id")
    if kind == "function_call":
        name = _full_name(member(item, "namespace"), member(item, "name"))
        builder.call(tool=name, arguments=member(item, "arguments"), client_call_id=identity, where=where)
    elif kind == "custom_tool_call":
        name = _full_name(member(item, "namespace"), member(item, "name"))
        builder.freeform(tool=name, text=member(item, "input"), client_call_id=identity, where=where)
    elif kind == "local_shell_call":
        builder.call(
            tool="local_shell", arguments=member(item, "action"), client_call_id=identity, where=where
        )
    else:
        name = kind.removesuffix("_call")
        builder.call(tool=name, arguments=member(item, "action"), client_call_id=identity, where=where)


def _full_name(namespace: JsonValue, name: JsonValue) -> JsonValue:
    if not isinstance(name, str) or not isinstance(namespace, str) or not namespace:
        return name
    return f"{namespace.removesuffix('__')}__{name}"


def _told(output: JsonValue) -> str | None:
    # Older rollouts wrap the text: {"output": "…", "metadata": {"exit_code": 0}} as JSON text, or an object.
    if isinstance(output, dict):
        return text_of(output.get("content")) or text_of(output.get("output"))
    return text_of(output)


def _note_cwd(payload: JsonValue, builder: RecordingBuilder) -> None:
    cwd = member(payload, "cwd")
    if builder.cwd is None and isinstance(cwd, str):
        builder.cwd = cwd

"""Trajectories of mini-swe-agent (``.traj.json``).

Version 2 makes tool calls; version 1, and version 2 with a model that has no tools, put one shell command in
a fenced block of the reply. Which of the two a file holds is told by the whole file: a fenced block beside
tool calls is talk. A reply with no such block, or with several, ran nothing: mini-swe-agent asks again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from budgets.call import JsonValue
from executor.recordings.exit_codes import exit_code_of
from executor.recordings.openai_chat import parse_tool_calls
from executor.recordings.recording import RecordingBuilder
from executor.recordings.source import Located
from executor.recordings.values import member, text_of

_FENCED: Final = re.compile(r"^```(?:bash|mswea_bash_command)[ \t]*\n(.*?)\n```", re.DOTALL | re.MULTILINE)
_ANSWERING_ROLES: Final = frozenset({"user", "tool"})


def recognises(value: JsonValue) -> bool:
    """Whether a document says that it is such a trajectory, or has its two halves: info and messages."""
    declared = member(value, "trajectory_format")
    if isinstance(declared, str) and declared.startswith("mini-swe-agent"):
        return True
    told = member(value, "info")
    return isinstance(told, dict) and "model_stats" in told and isinstance(member(value, "messages"), list)


def parse(records: Iterable[Located], builder: RecordingBuilder) -> None:
    """Read the trajectory.

    Raises:
        RecordingInvalid: It has no messages, or a tool call has no name.
    """
    for record in records:
        messages = member(record.value, "messages")
        if not isinstance(messages, list):
            raise builder.problem("no list of messages", where=record.where or "line 1", seen=record.value)
        settings = member(record.value, "info", "config")
        builder.cwd = builder.cwd or _text(member(settings, "environment", "cwd"))
        requested = member(settings, "model", "model_name")
        fenced = not any(_has_actions(message) for message in messages)
        for number, message in enumerate(messages):
            _parse_message(message, f"messages[{number}]", builder, requested=requested, fenced=fenced)


def _parse_message(
    message: JsonValue, where: str, builder: RecordingBuilder, *, requested: JsonValue, fenced: bool
) -> None:
    role = member(message, "role")
    if not isinstance(message, dict) or not isinstance(role, str):
        raise builder.problem("a message without a role", where=where, seen=message)
    if role == "assistant":
        builder.turns += 1
        _note_route(message, builder, requested)
        _parse_reply(message, where, builder, fenced=fenced)
    elif role in _ANSWERING_ROLES:
        _parse_answer(message, builder)


def _parse_reply(
    message: dict[str, JsonValue], where: str, builder: RecordingBuilder, *, fenced: bool
) -> None:
    if message.get("tool_calls"):
        parse_tool_calls(message, where, builder)
        return
    actions = member(message, "extra", "actions")
    if isinstance(actions, list):
        for number, action in enumerate(actions):
            place = f"{where} actions[{number}]"
            arguments: JsonValue = {"command": member(action, "command")}
            builder.call(
                tool="bash", arguments=arguments, client_call_id=member(action, "tool_call_id"), where=place
            )
        return
    if fenced:
        _parse_fenced(text_of(message.get("content")) or "", where, builder)


def _parse_fenced(text: str, where: str, builder: RecordingBuilder) -> None:
    blocks = _FENCED.findall(text)
    if len(blocks) == 1:
        builder.call(tool="bash", arguments={"command": blocks[0].strip()}, client_call_id=None, where=where)
        return
    builder.note(
        f"{where}: {len(blocks)} command blocks where one is needed; mini-swe-agent ran none of them"
    )


def _parse_answer(message: dict[str, JsonValue], builder: RecordingBuilder) -> None:
    told = text_of(message.get("content"))
    stated = member(message, "extra", "returncode")
    exit_code = stated if isinstance(stated, int) and not isinstance(stated, bool) else exit_code_of(told)
    call_id = message.get("tool_call_id")
    if call_id is not None:
        builder.output(call_id, told, exit_code=exit_code)
    elif (
        builder.calls
        and builder.calls[-1].turn == builder.turns - 1
        and builder.calls[-1].recorded_output is None
    ):
        builder.answer(len(builder.calls) - 1, told, exit_code=exit_code)


def _note_route(message: Mapping[str, JsonValue], builder: RecordingBuilder, requested: JsonValue) -> None:
    response = member(message.get("extra"), "response")
    builder.route(
        requested_model=requested,
        served_model=member(response, "model"),
        served_provider=member(response, "provider"),
    )


def _has_actions(message: JsonValue) -> bool:
    return bool(member(message, "tool_calls")) or isinstance(member(message, "extra", "actions"), list)


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None

"""Session files of Claude Code (``~/.claude/projects/…/<session>.jsonl``), and its ``stream-json`` output.

One answer of the model may be spread over several lines, one content block each, under one message id. A
resumed session repeats lines of the one before: a line whose uuid was seen is left out, and so is a call
whose id, name and input were all seen, since Claude's call ids are unique. Subagents in the same file
(sidechains) are part of the run; those that Claude Code keeps in files of their own are not seen here.

``message.model`` is the model that the response named. Lines that Claude Code wrote itself (model
``<synthetic>``) are no answer of a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from budgets.call import JsonValue
from executor.recordings.anthropic import CALL_BLOCKS, parse_blocks
from executor.recordings.recording import RecordingBuilder
from executor.recordings.source import Located
from executor.recordings.values import dumped, elements, member

_SYNTHETIC: Final = "<synthetic>"
_MESSAGE_TYPES: Final = frozenset({"user", "assistant"})
_FALLBACKS: Final = frozenset({"model_fallback", "model_refusal_fallback"})


@dataclass(kw_only=True, slots=True)
class _Session:
    """What was seen so far."""

    lines: set[str] = field(default_factory=set)
    calls: set[tuple[str, str, str]] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)
    requested: JsonValue = None
    fell_back: bool = False
    repeated: int = 0
    sidechain_calls: int = 0


def recognises(value: JsonValue) -> bool:
    """Whether a line is one of such a file that holds a message, or opens a stream."""
    kind = member(value, "type")
    if not isinstance(member(value, "sessionId") or member(value, "session_id"), str):
        return False
    if kind == "system" and member(value, "subtype") == "init":
        return isinstance(member(value, "claude_code_version"), str)
    return isinstance(kind, str) and kind in _MESSAGE_TYPES and _has_content(value)


def parse(records: Iterable[Located], builder: RecordingBuilder) -> None:
    """Read every line.

    Raises:
        RecordingInvalid: A line is no record, or a tool call has no name.
    """
    session = _Session()
    for record in records:
        kind = member(record.value, "type")
        if not isinstance(kind, str):
            raise builder.problem("a line without a type", where=record.where, seen=record.value)
        if not _is_new(record.value, session):
            continue
        _note_cwd(record.value, builder)
        if kind == "assistant":
            _parse_answer(record.value, record.where, session, builder)
        elif kind == "user":
            parse_blocks(member(record.value, "message", "content"), record.where, builder)
        elif kind == "system":
            _parse_notice(record.value, record.where, session, builder)
    _leave_notes(session, builder)


def _parse_answer(value: JsonValue, where: str, session: _Session, builder: RecordingBuilder) -> None:
    message = member(value, "message")
    if not isinstance(message, dict):
        raise builder.problem("an answer without its message", where=where, seen=value)
    if message.get("model") == _SYNTHETIC:
        return
    identity = message.get("id")
    if not isinstance(identity, str) or identity not in session.answers:
        if isinstance(identity, str):
            session.answers.add(identity)
        builder.turns += 1
        requested = member(value, "requestedModel") or session.requested
        builder.route(
            requested_model=requested, served_model=message.get("model"), fallback=session.fell_back
        )
    fresh = [block for block in elements(message.get("content")) if _is_fresh(block, session)]
    before = len(builder.calls)
    parse_blocks(fresh, where, builder)
    if member(value, "isSidechain") is True or isinstance(member(value, "parent_tool_use_id"), str):
        session.sidechain_calls += len(builder.calls) - before


def _parse_notice(value: JsonValue, where: str, session: _Session, builder: RecordingBuilder) -> None:
    subtype = member(value, "subtype")
    if subtype == "init":
        session.requested = member(value, "model")
    elif isinstance(subtype, str) and subtype in _FALLBACKS:
        # Claude Code stays on the stand-in for the rest of the session unless told otherwise.
        session.fell_back = True
        original = member(value, "originalModel") or member(value, "original_model")
        stand_in = member(value, "fallbackModel") or member(value, "fallback_model")
        builder.note(f"{where}: fell back from {original} to {stand_in}")
    elif subtype == "api_retry" or subtype == "api_error":
        builder.note(f"{where}: {subtype}, the request was tried again")


def _is_new(value: JsonValue, session: _Session) -> bool:
    identity = member(value, "uuid")
    if not isinstance(identity, str):
        return True
    if identity in session.lines:
        session.repeated += 1
        return False
    session.lines.add(identity)
    return True


def _is_fresh(block: JsonValue, session: _Session) -> bool:
    identity, name = member(block, "id"), member(block, "name")
    kind = member(block, "type")
    if not isinstance(kind, str) or kind not in CALL_BLOCKS:
        return True
    if not isinstance(identity, str) or not isinstance(name, str):
        return True
    key = (identity, name, dumped(member(block, "input")))
    if key in session.calls:
        session.repeated += 1
        return False
    session.calls.add(key)
    return True


def _leave_notes(session: _Session, builder: RecordingBuilder) -> None:
    if session.repeated:
        builder.note(f"{session.repeated} lines or calls that the file repeats were counted once")
    if session.sidechain_calls:
        builder.note(f"{session.sidechain_calls} calls were made by subagents")


def _note_cwd(value: JsonValue, builder: RecordingBuilder) -> None:
    cwd = member(value, "cwd")
    if builder.cwd is None and isinstance(cwd, str):
        builder.cwd = cwd


def _has_content(value: JsonValue) -> bool:
    message = member(value, "message")
    return isinstance(message, dict) and "content" in message and "role" in message

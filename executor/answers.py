"""Answers by client call id: a call that is issued again gets the answer that it had, and nothing runs twice.

The texts lie in a file of the run's directory, so that memory does not grow with them; they are a
convenience and no evidence. What is lost of them (a crash, a full disk) is answered as an error: it is never
a reason to run a call again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import anyio

from budgets.budget import Remaining
from budgets.call import JsonValue
from budgets.reasons import Reason
from executor.outcome import ToolOutcome

_KEPT_IN_MEMORY_BYTES: Final = 1024 * 1024


@dataclass(kw_only=True, slots=True)
class Answer:
    """What one client call id stands for.

    Attributes:
        key: Stands for tool and arguments.
        call: Our id of the call that ran, or is running.
    """

    key: str
    call: str
    ended: anyio.Event = field(default_factory=anyio.Event)
    kept: Mapping[str, Any] | None = None
    place: tuple[int, int] | None = None


def answer_key(tool: str, digest: str) -> str:
    """Give what tells a call that is issued again from another one under the same id."""
    return sha256(f"{tool}\0{digest}".encode("utf-8", "backslashreplace")).hexdigest()


class Answers:
    """All answers of one run that were given to calls with a client call id."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[str, Answer] = {}
        self._file: int | None = None
        self._held_bytes = 0

    def find(self, client_call_id: str) -> Answer | None:
        """Give what the id stands for, or None if it is new."""
        return self._answers.get(client_call_id)

    def claim(self, client_call_id: str, *, key: str, call: str) -> Answer:
        """Take an id for a call that is about to be decided."""
        answer = self._answers[client_call_id] = Answer(key=key, call=call)
        return answer

    def settle(self, client_call_id: str) -> None:
        """Give back the id of a call that came to no answer, and wake whoever waits for one."""
        answer = self._answers[client_call_id]
        if not answer.ended.is_set():
            del self._answers[client_call_id]
            answer.ended.set()

    def keep(self, client_call_id: str, outcome: ToolOutcome) -> None:
        """Store the answer and wake whoever waits for it."""
        answer = self._answers[client_call_id]
        document = {
            "client_call": client_call_id,
            "key": answer.key,
            "text_field": outcome.text_field,
            **outcome.to_json(),
        }
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        answer.place = self._written(line)
        if answer.place is None and self._held_bytes + len(line) <= _KEPT_IN_MEMORY_BYTES:
            self._held_bytes += len(line)
            answer.kept = document
        answer.ended.set()

    def recover(self, decided: Mapping[str, Answer]) -> None:
        """Take up the ids of an earlier process, and the texts as far as they are there."""
        self._answers.update(decided)
        for answer in decided.values():
            answer.ended.set()
        for place, document in _documents(self._path):
            known = self._answers.get(str(document.get("client_call")))
            if known is not None and known.key == document.get("key") and known.call == document.get("call"):
                known.place = place

    def tell(self, answer: Answer, remaining: Remaining) -> ToolOutcome:
        """Give a stored answer again, with what is left now."""
        document = answer.kept or self._read(answer)
        if document is None:
            return _lost(answer, remaining)
        return ToolOutcome(
            call=answer.call,
            status=document["status"],
            reasons=tuple(Reason(**reason) for reason in document["reasons"]),
            limit=document["limit"],
            exit_code=document["exit_code"],
            output=document["output"],
            truncated=document["truncated"],
            result=document["result"],
            text_field=document["text_field"],
            remaining=remaining,
            repeated=True,
        )

    def __enter__(self) -> Self:
        self._file = _opened(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _written(self, line: bytes) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            start = os.lseek(self._file, 0, os.SEEK_END)
            return (start, len(line)) if os.write(self._file, line) == len(line) else None
        except OSError:
            return None

    def _read(self, answer: Answer) -> dict[str, Any] | None:
        if answer.place is None or self._file is None:
            return None
        start, length = answer.place
        try:
            document: dict[str, Any] = json.loads(os.pread(self._file, length, start))
        except (OSError, ValueError):
            return None
        return document


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None


def _documents(path: Path) -> list[tuple[tuple[int, int], dict[str, JsonValue]]]:
    found: list[tuple[tuple[int, int], dict[str, JsonValue]]] = []
    try:
        data = path.read_bytes()
    except OSError:
        return []
    start = 0
    for line in data.splitlines(keepends=True):
        try:
            document = json.loads(line)
        except ValueError:
            document = None
        if isinstance(document, dict):
            found.append(((start, len(line)), document))
        start += len(line)
    return found


def _lost(answer: Answer, remaining: Remaining) -> ToolOutcome:
    detail = f"{answer.call} was issued before and its answer is lost; it is not run again"
    return ToolOutcome(
        call=answer.call,
        status="error",
        reasons=(Reason(code="run.interrupted", detail=detail),),
        limit=None,
        exit_code=None,
        output="",
        truncated=False,
        remaining=remaining,
        repeated=True,
    )

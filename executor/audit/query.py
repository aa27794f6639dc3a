"""Answer questions about a run from its journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from budgets.reasons import UnknownReasonCodeError, lookup
from executor.audit.canonical import JsonValue
from executor.audit.reader import Record, read_records


@dataclass(frozen=True, kw_only=True, slots=True)
class ViolationRow:
    """One violation with the call that it came from, if any."""

    seq: int
    ts: str
    elapsed_us: int
    code: str
    severity: str
    detail: str
    call: str | None
    tool: str | None
    preview: str | None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the row as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


def violations(path: Path) -> tuple[ViolationRow, ...]:
    """List what broke the rules, or tried to, in order: denied calls, and what was found besides.

    A denied call is listed under its first reason, unless a violation record tells of it already.

    Raises:
        JournalDamaged: A line is not a record.
        OSError: The file cannot be read.
    """
    calls: dict[str, Mapping[str, JsonValue]] = {}
    found: list[ViolationRow] = []
    denied: list[ViolationRow] = []
    for record in read_records(path):
        call = str(record.body.get("call"))
        if record.kind == "call.decided":
            calls[call] = record.body
        if record.kind == "violation":
            found.append(_row(record, record.body, calls.get(call, {})))
        elif _is_denial(record):
            reasons = cast("Sequence[Mapping[str, JsonValue]]", record.body.get("reasons"))
            denied.append(_row(record, {"call": call, **reasons[0]}, calls.get(call, {})))
    told = {row.call for row in found}
    return tuple(sorted([*found, *(row for row in denied if row.call not in told)], key=lambda row: row.seq))


def records(
    path: Path, *, kind: str | None = None, call: str | None = None, tool: str | None = None
) -> Iterator[Record]:
    """Yield the records that fit every condition given. A call's end belongs to the tool of its decision.

    Raises:
        JournalDamaged: A line is not a record.
        OSError: The file cannot be read.
    """
    tools: dict[str, str] = {}
    for record in read_records(path):
        name = str(record.body.get("call", ""))
        if record.kind == "call.decided":
            tools[name] = str(record.body.get("tool"))
        fits = kind in (None, record.kind) and call in (None, name) and tool in (None, tools.get(name))
        if fits:
            yield record


def _is_denial(record: Record) -> bool:
    body = record.body
    denied = (record.kind, body.get("action")) == ("call.decided", "deny")
    return bool(body.get("reasons")) and (
        denied or (record.kind, body.get("status")) == ("call.ended", "denied")
    )


def _row(record: Record, body: Mapping[str, JsonValue], decided: Mapping[str, JsonValue]) -> ViolationRow:
    arguments = decided.get("arguments")
    return ViolationRow(
        seq=record.seq,
        ts=record.ts,
        elapsed_us=record.elapsed_us,
        code=str(body.get("code")),
        severity=str(body.get("severity") or _severity(str(body.get("code")))),
        detail=str(body.get("detail", "")),
        call=_text(body.get("call")),
        tool=_text(decided.get("tool")),
        preview=_text(arguments.get("preview")) if isinstance(arguments, Mapping) else None,
    )


def _severity(code: str) -> str:
    try:
        return lookup(code).severity
    except UnknownReasonCodeError:
        return "medium"


def _text(value: JsonValue) -> str | None:
    return None if value is None else str(value)

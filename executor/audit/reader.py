"""Read a journal's lines and records without judging them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic_core import from_json

from executor.audit.canonical import JsonValue, canonical, unescape_strings
from executor.audit.errors import JournalDamaged, RecordRefused
from executor.audit.record import BODIES, FORMAT_VERSION

MAX_LINE_BYTES = 16 * 1024 * 1024
_NAMES = frozenset({"body", "elapsed_us", "kind", "prev", "run", "seq", "ts", "v"})
_ALL_NAMES = _NAMES | {"escaped"}
_LABEL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One record as read, its body's text as it was before any escaping."""

    seq: int
    kind: str
    run: str
    ts: str
    elapsed_us: int
    prev: str
    body: Mapping[str, JsonValue]


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield each line with its newline; only the last can lack one. A line over 16 MiB comes in pieces.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            yield line


def read_records(path: Path) -> Iterator[Record]:
    """Yield each finished record in order; an unfinished last line is left out.

    Raises:
        JournalDamaged: A line is not a record.
        OSError: The file cannot be read.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.endswith(b"\n"):
            try:
                yield parse_line(line[:-1])
            except ValueError as error:
                raise JournalDamaged(f"{path}:{number}: not a record: {error}") from error


def file_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file, as ``sha256sum`` gives it.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_line(line: bytes) -> Record:
    """Read one line without its newline, accepting nothing but the canonical form of a documented envelope.

    Raises:
        ValueError: It is anything else.
    """
    value = from_json(line)
    if type(value) is not dict or not _NAMES <= value.keys() <= _ALL_NAMES:
        raise ValueError("not an object with the fields of a record")
    try:
        if canonical(value) != line:
            raise ValueError("not in canonical form")
    except RecordRefused as error:
        raise ValueError(str(error)) from error
    if not _typed(value):
        raise ValueError("a field of the record has another type than documented")
    return _record(value)


def _record(value: dict[str, Any]) -> Record:
    body = value["body"]
    return Record(
        seq=value["seq"],
        kind=value["kind"],
        run=value["run"],
        ts=value["ts"],
        elapsed_us=value["elapsed_us"],
        prev=value["prev"],
        body=cast("dict[str, JsonValue]", unescape_strings(body)) if "escaped" in value else body,
    )


def _typed(value: dict[str, Any]) -> bool:
    seq, elapsed_us = value["seq"], value["elapsed_us"]
    return (
        type(seq) is int
        and type(elapsed_us) is int
        and seq >= 0
        and elapsed_us >= 0
        and type(value["body"]) is dict
        and value["kind"] in BODIES
        and type(value["run"]) is str
        and type(value["prev"]) is str
        and type(value["ts"]) is str
        and _LABEL.fullmatch(value["ts"]) is not None
        and value["v"] == FORMAT_VERSION
        and value.get("escaped", True) is True
    )

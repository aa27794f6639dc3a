"""Read a journal's lines and records without judging them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic_core import from_json

from executor.audit.canonical import JsonValue, unescape_strings
from executor.audit.errors import JournalDamaged

MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One record as read, its body's text as it was before any escaping."""

    seq: int
    kind: str
    ts: str
    elapsed_us: int
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
            yield _record(line, f"{path}:{number}")


def _record(line: bytes, place: str) -> Record:
    try:
        value = from_json(line)
        body = value["body"]
        if value.get("escaped"):
            body = cast("dict[str, JsonValue]", unescape_strings(body))
        return Record(
            seq=value["seq"], kind=value["kind"], ts=value["ts"], elapsed_us=value["elapsed_us"], body=body
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalDamaged(f"{place}: not a record: {error}") from error

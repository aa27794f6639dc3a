"""Read a recording's file within bounds: one JSON value a line, or one JSON document."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

from budgets.call import JsonValue
from executor.recordings.errors import RecordingInvalid
from executor.recordings.values import load_json

MAX_FILE_BYTES: Final = 1024 * 1024 * 1024
MAX_DOCUMENT_BYTES: Final = 128 * 1024 * 1024
MAX_LINE_BYTES: Final = 32 * 1024 * 1024
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Layout = Literal["lines", "document"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """A JSON value and where in the file it stands."""

    value: JsonValue
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingFile:
    """A file that holds a recording; read anew by every ``records()``."""

    path: Path
    layout: Layout

    @property
    def name(self) -> str:
        """The file as messages name it."""
        return ascii(str(self.path))[1:-1]

    def records(self) -> Iterator[Located]:
        """Give its JSON values in order; a document is one.

        Raises:
            RecordingInvalid: A line is too long or no JSON, or the file cannot be read.
        """
        try:
            with _open(self.path, self.name) as file:
                yield from _lines(file, self.name) if self.layout == "lines" else _document(file, self.name)
        except OSError as error:
            raise _unreadable(self.name, error) from error


def look_at(path: Path) -> RecordingFile:
    """Tell lines from a document by the first line that is not blank.

    Raises:
        RecordingInvalid: There is no such file, it is no regular file, too large, or holds no JSON.
    """
    name = ascii(str(path))[1:-1]
    try:
        with _open(path, name) as file:
            return RecordingFile(path=path, layout=_layout(file, name))
    except OSError as error:
        raise _unreadable(name, error) from error
    except ValueError as error:
        if isinstance(error, RecordingInvalid):
            raise
        raise RecordingInvalid("not a usable path", source=name) from error


def _open(path: Path, name: str) -> BinaryIO:
    # O_NONBLOCK: opening a FIFO that nobody writes to must not hang before fstat can refuse it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise RecordingInvalid("not a regular file", source=name, hint="save the recording to a file first")
    if status.st_size > MAX_FILE_BYTES:
        file.close()
        raise RecordingInvalid(
            f"{status.st_size} bytes, more than {MAX_FILE_BYTES}", source=name, hint="split it"
        )
    return file


def _layout(file: BinaryIO, name: str) -> Layout:
    first = b""
    for _, line in _raw_lines(file, name):
        if first:
            # More than one line, and the first is whole in itself.
            return "lines"
        first = line
        if not first.startswith((b"{", b"[")):
            raise RecordingInvalid(
                "no JSON", source=name, where="line 1", seen=_decoded(first), hint=_WHAT_IS_READ
            )
        if not _is_json(first):
            return "document"
    if not first:
        raise RecordingInvalid("empty", source=name, hint=_WHAT_IS_READ)
    return "document"


_WHAT_IS_READ: Final = (
    "a recording is JSON, or JSON Lines with one value a line; see docs/replay.md for the formats"
)


def _raw_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise RecordingInvalid(
                f"a line of more than {MAX_LINE_BYTES} bytes", source=name, where=f"line {number}"
            )
        stripped = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
        if stripped:
            yield number, stripped


def _lines(file: BinaryIO, name: str) -> Iterator[Located]:
    for number, line in _raw_lines(file, name):
        where = f"line {number}"
        try:
            yield Located(value=load_json(line), where=where)
        except ValueError as error:
            hint = "the other lines hold one JSON value each; was the file cut off here?"
            raise RecordingInvalid(
                f"no JSON ({error})", source=name, where=where, seen=_decoded(line), hint=hint
            ) from error


def _document(file: BinaryIO, name: str) -> Iterator[Located]:
    data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        hint = "JSON Lines may be larger, they are read line by line"
        raise RecordingInvalid(f"a document of more than {MAX_DOCUMENT_BYTES} bytes", source=name, hint=hint)
    try:
        value = load_json(data.removeprefix(_BYTE_ORDER_MARK))
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise RecordingInvalid(
            f"no JSON ({error})",
            source=name,
            where=f"line {line}",
            seen=_line_at(data, line),
            hint=_WHAT_IS_READ,
        ) from error
    yield Located(value=value, where="")


def _is_json(line: bytes) -> bool:
    try:
        load_json(line)
    except ValueError:
        return False
    return True


def _line_at(data: bytes, number: int) -> str:
    lines = data.split(b"\n", number)
    return _decoded(lines[number - 1]) if number <= len(lines) else ""


def _decoded(line: bytes) -> str:
    return line[:200].decode("utf-8", "replace")


def _unreadable(name: str, error: OSError) -> RecordingInvalid:
    return RecordingInvalid(f"cannot be read ({error.strerror})", source=name)

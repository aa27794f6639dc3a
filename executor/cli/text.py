"""Text for a terminal: tables without colour, and nothing of a sandbox or a model that a terminal obeys."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence

_MAX_CELL = 100


def visible(text: str, *, keep: str = "\n") -> str:
    r"""Spell out every character that does not print: escapes, bidirectional overrides, lone surrogates.

    A newline is kept unless ``keep`` says otherwise; an escape character comes out as ``\x1b``.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _spelled(char) for char in text)


def one_line(text: str, *, limit: int = _MAX_CELL) -> str:
    """Make ``text`` fit a table cell: one visible line, cut with an ellipsis."""
    shown = visible(text, keep="")
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def table(
    rows: Iterable[Sequence[str]], *, header: Sequence[str] | None = None, limit: int = _MAX_CELL
) -> str:
    """Lay ``rows`` out in columns two spaces apart, left aligned; the last column is not padded."""
    lines = [tuple(one_line(cell, limit=limit) for cell in row) for row in rows]
    if header is not None:
        lines.insert(0, tuple(header))
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(_padded(line, widths) for line in lines)


class ReaderGone(Exception):
    """Whoever read our stdout has closed it."""


def write(text: str = "") -> None:
    """Write a line of data to stdout.

    Raises:
        ReaderGone: Nobody reads it any more.
    """
    try:
        sys.stdout.write(text + "\n")
    except BrokenPipeError as error:
        # click would turn it into exit code 1, which means "fail".
        raise ReaderGone from error


def talk(text: str = "") -> None:
    """Write a line of talk to stderr, for whoever still listens."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(text + "\n")


def write_json(value: object) -> None:
    """Write one JSON document to stdout, indented and in ASCII, so that no control character gets out raw."""
    write(json_text(value, indent=2))


def write_json_line(value: object) -> None:
    """Write one JSON value on one line of stdout."""
    write(json_text(value, indent=None))


def json_text(value: object, *, indent: int | None) -> str:
    """Spell ``value`` as ASCII JSON."""
    return json.dumps(value, indent=indent, ensure_ascii=True, default=_plain).replace("\x7f", "\\u007f")


def plural(count: int, noun: str) -> str:
    """``1 call``, ``2 calls``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _spelled(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _padded(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
    return "  ".join(cells).rstrip()

"""One byte form for each JSON value (RFC 8785), and a reversible way in for values that have none.

Records hold no floats and no integers of 2^53 or more, so the number rules of RFC 8785 never come into play
and a plain encoder gives its exact bytes; only keys outside ASCII need its UTF-16 order made by hand.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import orjson

from executor.audit.errors import RecordRefused

JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None

MAX_INTEGER = 2**53 - 1
_LONG_TEXT = 4096
_PIECE_CHARACTERS = 64 * 1024
_ESCAPABLE = re.compile(r"[\\\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")
_keeping = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def canonical(value: JsonValue) -> bytes:
    """Encode a value as RFC 8785 canonical JSON.

    Raises:
        RecordRefused: It holds a float, an integer beyond ±(2^53 - 1) or a lone surrogate, or is not JSON.
    """
    try:
        if _is_simple(value):
            # What it refuses (a lone surrogate, great depth) is told apart below.
            with suppress(orjson.JSONEncodeError):
                return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return _keeping(_ordered(value)).encode()
    except UnicodeEncodeError as error:
        raise RecordRefused(f"a string holds the lone surrogate {error.object[error.start]!r}") from error
    except RecursionError as error:
        raise RecordRefused("a value is nested too deeply") from error


def escape_text(text: str) -> str:
    r"""Write a byte that is not UTF-8 (a surrogate escape) as ``\xNN`` and a backslash as two.

    Any other lone surrogate becomes ``\uNNNN``.
    """
    return _ESCAPABLE.sub(_escape_one, text)


def unescape_text(text: str) -> str:
    """Undo ``escape_text`` exactly."""
    return _ESCAPED.sub(_unescape_one, text)


def escape_strings(value: JsonValue) -> JsonValue:
    """Apply ``escape_text`` to every string and key of a value."""
    return _map_strings(value, escape_text)


def unescape_strings(value: JsonValue) -> JsonValue:
    """Undo ``escape_strings`` exactly."""
    return _map_strings(value, unescape_text)


def digestible(value: JsonValue) -> JsonValue:
    r"""Give any JSON value, floats and all, a form with canonical bytes; no two values get the same.

    Strings are escaped; what canonical JSON cannot carry becomes an object whose only key starts with one
    backslash, which no escaped key does. Long strings are stood for by their SHA-256.
    """
    if isinstance(value, str):
        return _digestible_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -MAX_INTEGER <= value <= MAX_INTEGER else {"\\int": hex(value)}
    if isinstance(value, float):
        return {"\\float": value.hex()}
    if isinstance(value, Mapping):
        return {escape_text(key): digestible(member) for key, member in value.items()}
    return [digestible(member) for member in value]


def _is_simple(value: Any) -> bool:  # noqa: ANN401 (types are what it tests)
    """Tell whether the fast encoder gives the exact bytes: plain types, small integers, ASCII keys.

    Exact types only, tested in place without a call per leaf: this runs for every record that is written.
    """
    kind = type(value)
    if kind is dict:
        for key, member in value.items():
            leaf = type(member)
            if leaf is int:
                if not -MAX_INTEGER <= member <= MAX_INTEGER:
                    return False
            elif leaf is not str and leaf is not bool and member is not None and not _is_simple(member):
                return False
            if type(key) is not str or not key.isascii():
                return False
        return True
    if kind is list or kind is tuple:
        return all(map(_is_simple, value))
    if kind is int:
        return bool(-MAX_INTEGER <= value <= MAX_INTEGER)
    return kind is str or kind is bool or value is None


def _ordered(value: object) -> object:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if -MAX_INTEGER <= value <= MAX_INTEGER:
            return int(value)
        raise RecordRefused(f"an integer of {value.bit_length()} bits does not fit in 53")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise RecordRefused("an object has a key that is not a string")
        return {key: _ordered(value[key]) for key in sorted(value, key=_utf16)}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_ordered(member) for member in value]
    raise RecordRefused(f"a value of type {type(value).__name__} has no canonical form")


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def _map_strings(value: JsonValue, change: Callable[[str], str]) -> JsonValue:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            change(key) if isinstance(key, str) else key: _map_strings(member, change)
            for key, member in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_map_strings(member, change) for member in value]
    return value


def _digestible_text(text: str) -> JsonValue:
    if len(text) <= _LONG_TEXT:
        return escape_text(text)
    digest = hashlib.sha256()
    # In pieces: the memory of a long encoding costs as much as its digest.
    for start in range(0, len(text), _PIECE_CHARACTERS):
        digest.update(text[start : start + _PIECE_CHARACTERS].encode("utf-8", "surrogatepass"))
    return {"\\sha256": digest.hexdigest()}


def _escape_one(match: re.Match[str]) -> str:
    character = match[0]
    if character == "\\":
        return "\\\\"
    point = ord(character)
    return f"\\x{point - 0xDC00:02x}" if 0xDC80 <= point <= 0xDCFF else f"\\u{point:04x}"


def _unescape_one(match: re.Match[str]) -> str:
    if match[1]:
        return chr(0xDC00 + int(match[1], 16))
    return chr(int(match[2], 16)) if match[2] else "\\"

"""Look into parsed JSON whose shape nobody has promised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn, cast

from budgets.call import JsonValue


def parse_json(text: str | bytes) -> JsonValue:
    """Read one JSON value; what is none reads as None, like ``null``."""
    try:
        return load_json(text)
    except ValueError:
        return None


def load_json(text: str | bytes) -> JsonValue:
    """Read one JSON value by RFC 8259: no NaN, no Infinity.

    Raises:
        ValueError: It is none, or nested too deep for this machine.
    """
    try:
        return cast("JsonValue", json.loads(text, parse_constant=_refuse_constant))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def dumped(value: JsonValue) -> str:
    """Write a parsed value back as JSON text."""
    try:
        return json.dumps(value)
    except RecursionError:
        return f"<{type(value).__name__} nested too deep>"


def member(value: JsonValue, *names: str) -> JsonValue:
    """Follow names through nested objects; None as soon as one is not there."""
    for name in names:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def elements(value: JsonValue) -> Sequence[JsonValue]:
    """Give the elements of an array; anything else has none."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def text_of(value: JsonValue) -> str | None:
    """Give the text of a message's content: a string, or the ``text`` of its blocks put together."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        return None
    parts = [member(block, "text") for block in value]
    return "\n".join(part for part in parts if isinstance(part, str))


def printable(text: str) -> str:
    """Replace what cannot be written as UTF-8 by its escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

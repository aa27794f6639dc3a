"""Sizes and times as a remit's author writes them, and as bytes and seconds.

Only binary units are known (``512MiB``): what ``512MB`` or ``512M`` means depends on whom one asks, so it is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_SIZE_BYTES: Final = 2**50
MAX_DURATION_SECONDS: Final = 30 * 24 * 3600

_UNITS: Final[Mapping[str, int]] = MappingProxyType(
    {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
)
_SIZE: Final = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)")
_MILLISECONDS: Final = re.compile(r"([0-9]{1,12})ms")
_TIME: Final = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,8})m)?(?:([0-9]{1,10}(?:\.[0-9]{1,3})?)s)?")


def parse_size(value: object) -> int:
    """Read a number of bytes, or a text such as ``64KiB``; the result is a whole number of bytes, 0 included.

    Raises:
        PydanticCustomError: It is neither; ``hint`` says what to write.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded_size(value)
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError("size", "a size is a number of bytes or a text such as 64KiB", {})
    number, unit = found.groups()
    if unit not in _UNITS:
        raise PydanticCustomError("size", "unknown unit of size", {"hint": _unit_hint(number, unit)})
    size = float(number) * _UNITS[unit] if "." in number else int(number) * _UNITS[unit]
    if size != int(size):
        raise PydanticCustomError("size", "a size is a whole number of bytes", {})
    return _bounded_size(int(size))


def parse_duration(value: object) -> float:
    """Read a number of seconds, or a text such as ``90s``, ``1h30m`` or ``250ms``; to the millisecond.

    Raises:
        PydanticCustomError: It is neither; ``hint`` says what to write.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounded_duration(value)
    text = value if isinstance(value, str) else ""
    if (found := _MILLISECONDS.fullmatch(text)) is not None:
        return _bounded_duration(int(found[1]) / 1000)
    found = _TIME.fullmatch(text)
    if found is None or not any(found.groups()):
        hint = {"hint": "units are h, m, s and ms"} if text else {}
        raise PydanticCustomError(
            "duration", "a time is a number of seconds or a text such as 90s, 10m or 1h30m", hint
        )
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return _bounded_duration(hours * 3600 + minutes * 60 + seconds)


def _bounded_size(size: int) -> int:
    if not 0 <= size <= MAX_SIZE_BYTES:
        raise PydanticCustomError("size", "a size lies between 0 and 1024TiB", {})
    return size


def _bounded_duration(seconds: float) -> float:
    # Not a number lies between no two others.
    if not 0.001 <= seconds <= MAX_DURATION_SECONDS:
        raise PydanticCustomError("duration", "a time lies between 1ms and 30 days", {})
    return round(seconds, 3)


def _unit_hint(number: str, unit: str) -> str:
    meant = {name[:1].lower(): name for name in _UNITS if name.endswith("iB")}.get(unit[:1].lower())
    return f"did you mean {number}{meant}?" if meant else f"units are {', '.join(filter(None, _UNITS))}"


_SIZE_SCHEMA: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": MAX_SIZE_BYTES},
        {"type": "string", "pattern": r"^[0-9]{1,16}(\.[0-9]{1,6})? ?(B|KiB|MiB|GiB|TiB)?$"},
    ]
}
_DURATION_SCHEMA: Final = {
    "anyOf": [
        {"type": "number", "minimum": 0.001, "maximum": MAX_DURATION_SECONDS},
        {"type": "string", "pattern": r"^([0-9]+ms|(?=.)([0-9]+h)?([0-9]+m)?([0-9]+(\.[0-9]{1,3})?s)?)$"},
    ]
}

Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
PositiveSize = Annotated[int, BeforeValidator(parse_size), Field(ge=1), WithJsonSchema(_SIZE_SCHEMA)]
Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]

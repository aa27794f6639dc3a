"""Check a tool's arguments and describe them as JSON Schema, both from one declaration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from budgets.call import JsonValue
from budgets.reasons import Reason

Kind = Literal["string", "integer", "boolean", "strings"]

_JSON_TYPES: Final[Mapping[Kind, JsonValue]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "strings": {"type": "array", "items": {"type": "string"}},
}
_MAX_NUMBER: Final = 2**53 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Argument:
    """One named argument of a tool.

    Attributes:
        only: The one value that is accepted, for arguments that agents send and that mean nothing here.
    """

    name: str
    kind: Kind
    description: str
    required: bool = False
    default: JsonValue = None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    only: JsonValue = None

    def schema(self) -> dict[str, JsonValue]:
        """Describe the argument for a model."""
        described = dict(cast("Mapping[str, JsonValue]", _JSON_TYPES[self.kind]))
        described["description"] = self.description
        if self.choices:
            described["enum"] = list(self.choices)
        if self.minimum is not None:
            described["minimum"] = self.minimum
        if self.maximum is not None:
            described["maximum"] = self.maximum
        if self.default is not None:
            described["default"] = self.default
        if self.only is not None:
            described.update({"const": self.only, "default": self.only})
        return described

    def problem(self, value: JsonValue) -> str | None:
        """Say in one sentence why ``value`` is not acceptable, or None."""
        if not _is_kind(value, self.kind):
            return f"{self.name} must be {_article(self.kind)}, not {_shown(value)}"
        if self.only is not None and value != self.only:
            return f"{self.name} is not supported ({self.description}); leave it out"
        if self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}, not {_shown(value)}"
        if self.kind == "integer":
            return self._range_problem(cast("int", value))
        if self.kind == "string":
            return _text_problem(self.name, cast("str", value))
        return None

    def _range_problem(self, value: int) -> str | None:
        if self.minimum is not None and value < self.minimum:
            return f"{self.name} must be at least {self.minimum}, not {_shown(value)}"
        if value > (_MAX_NUMBER if self.maximum is None else self.maximum):
            return f"{self.name} must be at most {self.maximum or _MAX_NUMBER}, not {_shown(value)}"
        return None


class Arguments:
    """The arguments of one tool, in order."""

    def __init__(self, *arguments: Argument) -> None:
        self._arguments = arguments
        self._by_name = {argument.name: argument for argument in arguments}
        self._required = tuple(argument.name for argument in arguments if argument.required)
        self._defaults = {argument.name: argument.default for argument in arguments}

    def schema(self) -> dict[str, JsonValue]:
        """Describe all of them as a closed JSON Schema object."""
        return {
            "type": "object",
            "properties": {argument.name: argument.schema() for argument in self._arguments},
            "required": list(self._required),
            "additionalProperties": False,
        }

    def read(self, given: Mapping[str, JsonValue]) -> dict[str, JsonValue] | Reason:
        """Give every argument its value or default, or say what is wrong with all that are wrong."""
        problems: list[str] = []
        values = dict(self._defaults)
        for name, value in given.items():
            argument = self._by_name.get(name)
            if argument is None:
                problems.append(f"unknown argument {_shown(name)}")
                continue
            if value is None and not argument.required:
                # Some agents send null for what they leave out.
                continue
            values[name] = _whole(value) if argument.kind == "integer" else value
            problem = argument.problem(values[name])
            if problem is not None:
                problems.append(problem)
        problems += [f"{name} is missing" for name in self._required if name not in given]
        if problems:
            return Reason(code="arguments.invalid", detail="; ".join(problems[:8]))
        return values


def text_bytes(text: str) -> bytes | None:
    """Encode text for a file; None if it holds surrogates that stand for no byte."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None


def _is_kind(value: JsonValue, kind: Kind) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and all(isinstance(item, str) for item in value)
    )


def _whole(value: JsonValue) -> JsonValue:
    # JSON has one kind of number: 5.0 is the integer 5.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text_problem(name: str, value: str) -> str | None:
    if value.isascii() or text_bytes(value) is not None:
        return None
    return f"{name} holds half of a surrogate pair"


def _article(kind: Kind) -> str:
    return {
        "string": "a string",
        "integer": "an integer",
        "boolean": "true or false",
        "strings": "a list of strings",
    }[kind]


def _shown(value: JsonValue) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

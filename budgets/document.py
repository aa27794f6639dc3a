"""YAML as a remit may use it: the core schema of YAML 1.2, and nothing that does more than write a tree down.

``on``, ``yes`` and ``no`` are text, ``010`` is ten, a date is text. Anchors, aliases, tags, merge keys and
more than one document are refused, and so is a text that is large or deep, before it costs anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias, cast

from yaml.composer import Composer
from yaml.error import YAMLError
from yaml.events import AliasEvent, NodeEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from budgets.problem import Problem, RemitInvalid, show

KeyPath: TypeAlias = tuple[str | int, ...]

MAX_CHARACTERS: Final = 256 * 1024
MAX_DEPTH: Final = 16
MAX_NODES: Final = 20_000
MAX_DIGITS: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """Plain values, the line on which each was written, and what no valid document holds.

    ``lines`` has the root under the empty path.
    """

    value: object
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...]

    def line_of(self, path: KeyPath) -> int:
        """Give the line of a value, or of the nearest one around it that was written down."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_document(text: str, *, source: str) -> Document:
    """Read a text to plain values.

    Raises:
        RemitInvalid: It is not such YAML, so that nothing in it can be judged.
    """
    if len(text) > MAX_CHARACTERS:
        problem = Problem(
            line=1, where="", message=f"{len(text)} characters, at most {MAX_CHARACTERS} are allowed"
        )
        raise RemitInvalid(source, [problem])
    try:
        root = _compose(text)
    except YAMLError as error:
        raise RemitInvalid(source, [_syntax_problem(error, text)]) from error
    if root is None:
        raise RemitInvalid(source, [Problem(line=1, where="", message="the document is empty")])
    reading = _Reading()
    value = reading.value_of(root, ())
    return Document(value=value, lines=reading.lines, problems=tuple(reading.problems))


def dotted(path: KeyPath) -> str:
    """Write a path as its author would say it: ``checks[0].run``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[\w-]{1,60}", part, flags=re.ASCII) else show(part)
            text += f".{name}" if text else name
    return text


_CONSTANTS: Final[Mapping[str, object]] = MappingProxyType(
    {
        **dict.fromkeys(("", "~", "null", "Null", "NULL")),
        **dict.fromkeys(("true", "True", "TRUE"), True),
        **dict.fromkeys(("false", "False", "FALSE"), False),
        **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
        **{sign + name: float(f"{sign}inf") for sign in ("", "+", "-") for name in (".inf", ".Inf", ".INF")},
    }
)
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMBER_LIKE: Final = re.compile(f"{_OCTAL.pattern}|{_HEXADECIMAL.pattern}|{_FLOAT.pattern}")


def _plain_value(text: str) -> object:
    """Resolve a plain scalar by the core schema (YAML 1.2.2, section 10.3.2)."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for pattern, base in ((_INTEGER, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            return int(text, base) if base == 10 else int(text[2:], base)
    return float(text) if _FLOAT.fullmatch(text) else text


class _RefusedError(YAMLError):
    """Something of YAML that a remit does not need."""

    def __init__(self, event: NodeEvent, message: str) -> None:
        super().__init__(message)
        self.line = _line(event.start_mark)


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's scanner, parser and composer, with no resolver and no constructor, and with limits."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = 0
        self.nodes = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose one node and all below it, unless a limit is passed or it is more than a plain value."""
        event = cast("NodeEvent", self.peek_event())  # type: ignore[no-untyped-call]
        self.depth += 1
        self.nodes += 1
        if self.depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise _RefusedError(event, f"more than {MAX_DEPTH} levels or {MAX_NODES} values")
        if (extra := _extra(event)) is not None:
            raise _RefusedError(event, f"{extra} is not allowed; write the value itself")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _extra(event: NodeEvent) -> str | None:
    if isinstance(event, AliasEvent):
        return "an alias"
    if event.anchor is not None:
        return "an anchor"
    return None if getattr(event, "tag", None) is None else "a tag"


def _compose(text: str) -> Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _syntax_problem(error: YAMLError, text: str) -> Problem:
    if isinstance(error, _RefusedError):
        return Problem(line=error.line, where="", message=str(error))
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Problem(
            line=line, where="", message="a character that cannot be printed", seen=f"U+{error.character:04X}"
        )
    said = " ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None))))
    return Problem(
        line=_line(getattr(error, "problem_mark", None)), where="", message=f"not valid YAML: {said or error}"
    )


def _line(mark: object) -> int:
    line: int = getattr(mark, "line", 0)
    return line + 1


@dataclass(kw_only=True, slots=True)
class _Reading:
    """Nodes on their way to values."""

    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def value_of(self, node: Node, path: KeyPath) -> object:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value_of(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(cast("ScalarNode", node), path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._scalar(key_node, path) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                seen = show(key_node.value) if isinstance(key_node, ScalarNode) else None
                self._note(line, path, "a key must be text", seen=seen)
            elif key in values:
                first = self.lines[(*path, key)]
                self._note(line, (*path, key), f"this key is there already, on line {first}")
            else:
                self.lines[(*path, key)] = line
                values[key] = self.value_of(value_node, (*path, key))
        return values

    def _scalar(self, node: ScalarNode, path: KeyPath) -> object:
        text: str = node.value
        if node.style is not None:
            return text
        if _NUMBER_LIKE.fullmatch(text) and len(text) > MAX_DIGITS:
            self._note(
                node.start_mark.line + 1, path, f"a number has at most {MAX_DIGITS} digits", seen=show(text)
            )
            return 0
        return _plain_value(text)

    def _note(self, line: int, path: KeyPath, message: str, *, seen: str | None = None) -> None:
        self.problems.append(Problem(line=line, where=dotted(path), message=message, seen=seen))

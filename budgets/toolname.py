"""The names of the tools that a remit can speak of."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

TOOLS: Final = ("read_file", "write_file", "patch", "search_files", "list_files", "terminal")
UNENFORCEABLE: Final[Mapping[str, str]] = MappingProxyType(
    {"fetch": "the sandbox has no network, so that no limit on it could be shown to hold"}
)


def known_tool(name: str) -> str:
    """Let the name of a tool through.

    Raises:
        PydanticCustomError: There is no such tool, or none that can be held to a limit yet.
    """
    if name in TOOLS:
        return name
    if name in UNENFORCEABLE:
        message = f"the tool {name} cannot be enforced yet: {UNENFORCEABLE[name]}"
        raise _no_tool(message, hint="leave it out; a tool that is not named gets no calls")
    close = get_close_matches(name, TOOLS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"tools are {', '.join(TOOLS)}"
    raise _no_tool("there is no such tool", hint=hint)


def listed(value: object) -> object:
    """Turn a list into a tuple, and refuse a lone text, which would else be read letter by letter.

    Raises:
        PydanticCustomError: The value is a text.
    """
    if isinstance(value, str):
        raise PydanticCustomError("listed", "a list is needed here", {"hint": f"write [{value[:80]}]"})
    return tuple(value) if isinstance(value, list) else value


def _no_tool(message: str, *, hint: str) -> PydanticCustomError:
    return PydanticCustomError("tool", "{message}", {"message": message, "hint": hint})


ToolName = Annotated[str, AfterValidator(known_tool), WithJsonSchema({"type": "string", "enum": list(TOOLS)})]
ToolNames = Annotated[tuple[ToolName, ...], BeforeValidator(listed)]

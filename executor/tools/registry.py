"""The tools there are, and the way from a call to an action."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from budgets.call import ToolCall
from budgets.reasons import Reason
from executor.tools.base import Action, Tool
from executor.tools.files import LIST_FILES, READ_FILE, WRITE_FILE
from executor.tools.patch import PATCH
from executor.tools.search import SEARCH_FILES
from executor.tools.terminal import TERMINAL

TOOLS: Final[Mapping[str, Tool]] = MappingProxyType(
    {tool.name: tool for tool in (READ_FILE, WRITE_FILE, PATCH, SEARCH_FILES, LIST_FILES, TERMINAL)}
)


def understand(call: ToolCall, tools: Mapping[str, Tool] = TOOLS) -> Action | Reason:
    """Turn a call into an action, or say why it makes none: an unknown tool, or arguments that do not fit."""
    tool = tools.get(call.tool)
    if tool is None:
        return Reason(code="tool.unknown", detail=_unknown(call.tool, tools))
    return tool.parse(call.arguments)


def _unknown(name: str, tools: Mapping[str, Tool]) -> str:
    near = difflib.get_close_matches(name[:100], tools, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no tool {name[:100]!a}{hint}"

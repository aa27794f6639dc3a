"""The MCP door: one run's tools, for revisions 2026-07-28 and 2025-06-18.

The SDK's low-level server checks neither tool names nor arguments, and so nothing is left to it: each
call goes to the broker, which decides. What the broker answers is given twice, as structured content and
as text, because some clients show their model only one of them.

A tool that the remit gives no budget is not listed. What is listed never changes while the server lives:
the specification forbids a list that depends on other requests, and an exhausted tool answers with a
denial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import mcp.types as types
from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError

from budgets.call import JsonValue
from budgets.remit import Remit
from executor.adapters.stdio import stdio_streams
from executor.outcome import ToolOutcome
from executor.run import Run
from executor.tools.registry import TOOLS
from executor.version import version

SERVER_NAME = "remit"
# Clients re-issue a call whose answer they lost; only an id of their own tells that from a second call.
CLIENT_CALL_KEYS = ("dev.remit/callId", "claudecode/toolUseId", "callId")
MAX_CLIENT_CALL_ID = 256
_LIST_TTL_MS = 3_600_000
_READING = frozenset({"read_file", "search_files", "list_files"})


def build_server(run: Run) -> Server[dict[str, Any]]:
    """Make the server of one run; the caller drives it over the streams of its choice."""
    listed = offered_tools(run.remit)

    async def list_tools(
        _context: ServerRequestContext[dict[str, Any]], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed, ttl_ms=_LIST_TTL_MS, cache_scope="private")

    async def call_tool(
        _context: ServerRequestContext[dict[str, Any]], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        outcome = await run.call(
            params.name, params.arguments or {}, client_call_id=client_call_id(params.meta), source="mcp"
        )
        if params.name not in TOOLS:
            raise MCPError(
                types.INVALID_PARAMS, f"unknown tool: {params.name}", data=_wire_value(outcome.to_json())
            )
        return call_result(outcome)

    return Server(
        SERVER_NAME,
        version=version(),
        instructions=instructions(run.remit),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def serve_stdio(run: Run) -> None:
    """Serve ``run`` on stdin and stdout until the client closes our stdin."""
    server = build_server(run)
    async with stdio_streams() as streams:
        await server.run(streams.received, streams.to_send, server.create_initialization_options())


def offered_tools(remit: Remit) -> list[types.Tool]:
    """Describe the tools that have a budget, in the registry's order."""
    return [
        types.Tool(
            name=tool.name,
            description=tool.description,
            input_schema=dict(tool.input_schema),
            output_schema=dict(OUTCOME_SCHEMA),
            annotations=_annotations(tool.name),
        )
        for tool in TOOLS.values()
        if remit.budget.tools.get(tool.name, 0) > 0
    ]


def call_result(outcome: ToolOutcome) -> types.CallToolResult:
    """Put an outcome on the wire; denied, error and limit are tool errors, which the model can act on."""
    document = _wire_value(outcome.to_json())
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        structured_content=document,
        is_error=outcome.is_error,
    )


def client_call_id(meta: Mapping[str, Any] | None) -> str | None:
    """Find the id that the client gave this call; ids that are no short printable text count as none."""
    for key in CLIENT_CALL_KEYS:
        value = (meta or {}).get(key)
        if isinstance(value, str) and 0 < len(value) <= MAX_CLIENT_CALL_ID and value.isprintable():
            return f"{key}:{value}"
    return None


def instructions(remit: Remit) -> str:
    """Tell the model what it has been given, in the words of the remit."""
    tools = ", ".join(f"{name} {count}" for name, count in remit.budget.tools.items() if count > 0)
    return (
        f"Task {remit.task.id}. The workspace is {remit.scope.mount}. Calls per tool: {tools or 'none'}. "
        "Every answer says in `remaining` what is left. A call with status `denied` had no effect and will "
        f"have none if it is repeated; go on without it.{_keeping(remit)}"
    )


def _keeping(remit: Remit) -> str:
    """Say what of a call is kept, where that is not all of it."""
    kept = " Nothing but the workspace outlives a call." if remit.sandbox.lifetime == "call" else ""
    if remit.scope.growth == "refuse" and remit.budget.tools.get("terminal", 0) > 0:
        covered = ", ".join(remit.scope.write) or "nothing"
        kept += f" A command that changes more than {covered} loses all of its changes."
    return kept


def _annotations(name: str) -> types.ToolAnnotations:
    reading = name in _READING
    return types.ToolAnnotations(read_only_hint=reading, destructive_hint=not reading, open_world_hint=False)


def _wire_value(document: Mapping[str, JsonValue]) -> JsonValue:
    # File names may carry bytes that are no UTF-8; as lone surrogates they would stop the SDK's serialiser.
    value: JsonValue = json.loads(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
    return value


OUTCOME_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["call", "status", "reasons", "limit", "exit_code", "output", "truncated", "remaining"],
    "properties": {
        "call": {"type": "string", "description": "Our id of the call, as in the journal."},
        "status": {"enum": ["ok", "denied", "error", "limit"]},
        "reasons": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["code", "detail"],
                "properties": {"code": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "limit": {"type": ["string", "null"], "description": "With status limit: which one stopped it."},
        "exit_code": {
            "type": ["integer", "null"],
            "description": "The command's own; not an error of the call.",
        },
        "output": {"type": "string"},
        "truncated": {"type": "boolean"},
        "result": {
            "type": "object",
            "description": "What the tool found or did, by the tool's own field names.",
        },
        "remaining": {"type": "object", "description": "What is left of the budget after this call."},
    },
}

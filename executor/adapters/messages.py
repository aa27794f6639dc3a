"""One line of the wire as a message of the SDK, or as the answer to a request that the SDK cannot take.

The SDK drops what it cannot read, and takes a request whose id it does not know for a notification: the
client would wait for ever. Here every request gets an answer.
"""

from __future__ import annotations

import json
import math
from typing import Any

from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    JSONRPCNotification,
    JSONRPCRequest,
    jsonrpc_message_adapter,
)


def parsed(line: bytes) -> SessionMessage | Exception | bytes:
    """Read a line: a message, an error where nobody waits, or the line that answers what cannot be served."""
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError as error:
        request = _request(line)
        return error if request is None else _served_or_refused(line, request)
    if isinstance(message, JSONRPCNotification) and not message.method.startswith("notifications/"):
        request = _request(line)
        if request is not None:
            return _refusal(request)
    return SessionMessage(message)


def _request(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    expects_answer = isinstance(document, dict) and "method" in document and "id" in document
    return document if expects_answer else None


def _served_or_refused(line: bytes, request: dict[str, Any]) -> SessionMessage | bytes:
    """Let a request through whose arguments hold lone surrogates, which the broker denies and records."""
    try:
        line.decode()
        _without_arguments(request).encode()
        # What else could be wrong with it is for the SDK to say; only the surrogates are not its business.
        spelled = json.dumps(request, ensure_ascii=False).encode("utf-8", "replace")
        jsonrpc_message_adapter.validate_json(spelled, by_name=False)
        message = jsonrpc_message_adapter.validate_python(request, by_name=False)
    except (ValueError, RecursionError):
        return _refusal(request)
    return SessionMessage(message) if isinstance(message, JSONRPCRequest) else _refusal(request)


def _without_arguments(request: dict[str, Any]) -> str:
    params = request.get("params")
    if request["method"] == "tools/call" and isinstance(params, dict):
        request = {**request, "params": {**params, "arguments": None}}
    return json.dumps(request, ensure_ascii=False)


def _refusal(request: dict[str, Any]) -> bytes:
    number = request["id"]
    known = isinstance(number, str | int) and not isinstance(number, bool)
    if known and request.get("jsonrpc") == "2.0" and isinstance(request["method"], str):
        error = {"code": INVALID_PARAMS, "message": "the parameters cannot be read"}
    else:
        error = {
            "code": INVALID_REQUEST,
            "message": "not a request of JSON-RPC 2.0 with a string or integer id",
        }
    echoed = known or (isinstance(number, float) and math.isfinite(number))
    answer = {"jsonrpc": "2.0", "id": number if echoed else None, "error": error}
    return json.dumps(answer).encode()

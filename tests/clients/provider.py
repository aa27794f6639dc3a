"""A model provider on loopback that follows a script: Anthropic Messages and OpenAI Responses, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Step = dict[str, Any] | str
Events = list[dict[str, Any]]


class Provider(ThreadingHTTPServer):
    """Plays one step of the script for each request, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, script: list[Step]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.script = list(script)
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_step(self, request: dict[str, Any]) -> Step:
        self.asked.append(request)
        return self.script.pop(0) if self.script else "done"


@contextmanager
def provider(script: list[Step]) -> Iterator[Provider]:
    """Serve the script while inside."""
    with Provider(script) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: Provider
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._reply(b"", "text/plain")

    def do_GET(self) -> None:
        self._reply(b"{}", "application/json")

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/v1/messages/count_tokens"):
            self._reply(b'{"input_tokens": 1}', "application/json")
            return
        speak = _anthropic if self.path.startswith("/v1/messages") else _openai
        events = speak(self.server.next_step(request), len(self.server.asked), str(request.get("model")))
        body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        self._reply(body.encode(), "text/event-stream")

    def log_message(self, *_: object) -> None:
        pass

    def _reply(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _anthropic(step: Step, number: int, model: str) -> Events:
    usage = {"input_tokens": 1, "output_tokens": 1}
    if isinstance(step, str):
        block, stop = {"type": "text", "text": ""}, "end_turn"
        delta = {"type": "text_delta", "text": step}
    else:
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": step["name"], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(step["arguments"])}
        stop = "tool_use"
    message = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


def _openai(step: Step, number: int, model: str) -> Events:
    if isinstance(step, str):
        item = {
            "type": "message",
            "id": f"msg_{number}",
            "role": "assistant",
            "content": [{"type": "output_text", "text": step, "annotations": []}],
        }
    else:
        item = {
            "type": "function_call",
            "id": f"fc_{number}",
            "call_id": f"call_{number}",
            "arguments": json.dumps(step["arguments"]),
            **{key: step[key] for key in ("name", "namespace") if key in step},
        }
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    response = {"id": f"resp_{number}", "object": "response", "model": model, "output": [], "usage": usage}
    return [
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**response, "status": "completed", "output": [item]}},
    ]

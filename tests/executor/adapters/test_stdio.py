"""The wire of a stdio server: lines arrive whole, strays stay off it, and a signal is obeyed at once."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

SERVER = """
import os, signal, sys
import anyio
import mcp.types as types
from mcp.server import Server
from executor.adapters import stdio

stdio.MAX_LINE_BYTES = 200_000

async def call(context, params):
    print("stray print")
    os.write(1, b"stray write")
    text = params.name * int((params.arguments or {}).get("times", 1))
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])

async def stop(scope):
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return

async def main():
    server = Server("echo", version="1", on_call_tool=call)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop, tasks.cancel_scope)
        async with stdio.stdio_streams() as streams:
            await server.run(streams.received, streams.to_send, server.create_initialization_options())
        tasks.cancel_scope.cancel()
    print("left in good order", file=sys.stderr)

anyio.run(main, backend=sys.argv[1])
"""
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def call(number, name, **arguments):
    params = {"name": name, "arguments": arguments, "_meta": META}
    request = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return json.dumps(request).encode() + b"\n"


def start(backend, **streams):
    return subprocess.Popen([sys.executable, "-c", SERVER, backend], stderr=subprocess.PIPE, **streams)


@BACKENDS
def test_answers_are_one_line_each_and_strays_come_out_on_stderr(backend):
    with start(backend, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdin.write(call(1, "ab", times=100_000)[:50])
        server.stdin.flush()
        server.stdin.write(call(1, "ab", times=100_000)[50:] + call(2, "x"))
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline()) for _ in range(2)]
        rest, errors = server.communicate(timeout=30)

    texts = {answer["id"]: answer["result"]["content"][0]["text"] for answer in answers}
    assert texts == {1: "ab" * 100_000, 2: "x"}
    assert rest == b""
    assert errors.count(b"stray print") == errors.count(b"stray write") == 2
    assert server.returncode == 0


@BACKENDS
def test_a_signal_is_obeyed_while_the_client_is_silent(backend):
    with start(backend, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdin.write(call(1, "x"))
        server.stdin.flush()
        server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)

        assert b"left in good order" in server.stderr.read()


@BACKENDS
def test_a_signal_is_obeyed_while_the_client_does_not_read(backend):
    with start(backend, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdin.write(call(1, "x" * 1000, times=1000) + call(2, "y"))
        server.stdin.flush()
        server.stdout.read(10)
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)

        assert b"left in good order" in server.stderr.read()


@BACKENDS
def test_a_socket_as_stdin_and_stdout_works_as_pipes_do(backend):
    ours, theirs = socket.socketpair()
    with ours, start(backend, stdin=theirs, stdout=theirs) as server:
        theirs.close()
        ours.sendall(call(1, "z", times=500_000))
        reader = ours.makefile("rb")
        answer = json.loads(reader.readline())
        ours.shutdown(socket.SHUT_WR)
        server.wait(timeout=30)
        server.stderr.read()

    assert answer["result"]["content"][0]["text"] == "z" * 500_000


def test_an_overlong_line_is_dropped_and_the_next_one_served():
    with start("asyncio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdin.write(call(1, "first") + call(2, "x" * 300_000) + call(3, "third"))
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline()) for _ in range(2)]
        server.communicate(timeout=30)

    assert {answer["id"] for answer in answers} == {1, 3}


def test_a_client_that_vanishes_ends_the_server():
    with start("asyncio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdout.close()
        server.stdin.write(call(1, "x" * 1000, times=1000))
        server.stdin.flush()
        server.wait(timeout=30)

        assert b"left in good order" in server.stderr.read()


def raw(number, arguments=b"{}", name=b'"x"', head=b'"jsonrpc":"2.0","method":"tools/call"', **more):
    meta = json.dumps(META).encode()
    params = more.get("params", b'{"name":%s,"arguments":%s,"_meta":%s}' % (name, arguments, meta))
    return b'{%s,"id":%s,"params":%s}\n' % (head, number, params)


def answered(*lines):
    """Send the lines and a last good call; give the answers until that one's, by id."""
    with start("asyncio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdin.write(b"".join(lines))
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline()) for _ in lines]
        rest, _ = server.communicate(timeout=30)
    assert rest == b""
    return answers


def test_a_lone_surrogate_in_the_arguments_reaches_the_tool():
    lines = raw(b"1", rb'{"content":"\ud83d","\ud83d":["\ude00"]}'), call(2, "x")

    assert {answer["id"]: "result" in answer for answer in answered(*lines)} == {1: True, 2: True}


@pytest.mark.parametrize(
    ("line", "number", "code"),
    [
        (raw(b"1", name=rb'"\ud83d"'), 1, -32602),
        (raw(rb'"\ud83d"'), "\ud83d", -32602),
        (raw(b"1", b'{"a":"\xff"}'), 1, -32602),
        (raw(b"1", b'{"a":%s}' % (b"[" * 300 + b"]" * 300)), 1, -32602),
        (raw(b"1", params=b"[1]"), 1, -32602),
        (raw(b"1", head=b'"method":"tools/call"'), 1, -32600),
        (raw(b"1", head=b'"jsonrpc":"2.0","method":7'), 1, -32600),
        (raw(b"1.5"), 1.5, -32600),
        (raw(b"null"), None, -32600),
        (raw(b"NaN"), None, -32600),
        (raw(b"true"), None, -32600),
        (raw(b"[1]"), None, -32600),
    ],
)
def test_a_request_that_cannot_be_read_is_answered_with_an_error(line, number, code):
    found = {answer["id"]: answer for answer in answered(line, call(2, "x"))}

    assert found[number]["error"]["code"] == code
    assert "result" in found[2]


def test_what_is_no_request_gets_no_answer():
    lines = (
        b'{"jsonrpc":"2.0","method":"notifications/x","id":null}\n',
        b"nonsense\n",
        b'{"id":1}\n',
        b"[1]\n",
    )

    with start("asyncio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdin.write(b"".join(lines) + call(2, "x"))
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["id"] == 2
        assert server.communicate(timeout=30)[0] == b""

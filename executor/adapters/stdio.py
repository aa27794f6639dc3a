"""Newline-delimited JSON-RPC on this process's own stdin and stdout, as a pair of streams.

The SDK brings a transport of its own that reads in a thread. A thread that waits for a line cannot be
cancelled, so a server told to stop would hang until its client spoke again, and its run would be killed
instead of put away. Here every wait is one of the event loop, and a line has a length limit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from executor.adapters.messages import parsed

MAX_LINE_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 65536
_LAST_WORDS_SECONDS = 2
# A pipe that polls as writable takes this much without blocking (pipe(7), PIPE_BUF).
_PIPE_BYTES = 4096


class Streams(NamedTuple):
    """What ``mcp.server.Server.run`` takes."""

    received: MemoryObjectReceiveStream[SessionMessage | Exception]
    to_send: MemoryObjectSendStream[SessionMessage]


@asynccontextmanager
async def stdio_streams() -> AsyncIterator[Streams]:
    """Serve the wire on fds 0 and 1 while inside; whatever else writes to fd 1 meanwhile comes out on stderr.

    The received stream ends when the client closes our stdin.
    """
    inward, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_send, outward = anyio.create_memory_object_stream[SessionMessage | bytes](0)
    with _Claimed(0, os.devnull) as stdin, _Claimed(1, None) as stdout:
        async with anyio.create_task_group() as tasks:
            receiving = anyio.CancelScope()
            sent = anyio.Event()
            tasks.start_soon(_receive, stdin, inward, to_send.clone(), receiving)
            tasks.start_soon(_send, stdout, outward, receiving, sent)
            try:
                yield Streams(received, to_send)
            finally:
                receiving.cancel()
                to_send.close()
                with anyio.move_on_after(_LAST_WORDS_SECONDS, shield=True):
                    await sent.wait()
                tasks.cancel_scope.cancel()


class _Claimed:
    """A standard descriptor moved out of everybody's reach, and put back on leaving."""

    def __init__(self, number: int, diversion: str | None) -> None:
        self._number = number
        self._diversion = diversion

    def __enter__(self) -> int:
        self._wire = fcntl.fcntl(self._number, fcntl.F_DUPFD_CLOEXEC, 3)
        elsewhere = os.dup(2) if self._diversion is None else os.open(self._diversion, os.O_RDONLY)
        os.dup2(elsewhere, self._number)
        os.close(elsewhere)
        return self._wire

    def __exit__(self, *_: object) -> None:
        os.dup2(self._wire, self._number)
        os.close(self._wire)


async def _receive(
    wire: int,
    inward: MemoryObjectSendStream[SessionMessage | Exception],
    answers: MemoryObjectSendStream[SessionMessage | bytes],
    receiving: anyio.CancelScope,
) -> None:
    with receiving, answers:
        async with inward:
            async for line in _lines(wire):
                message = parsed(line)
                if isinstance(message, bytes):
                    # A client that is gone reads no answer.
                    with contextlib.suppress(anyio.BrokenResourceError):
                        await answers.send(message)
                else:
                    await inward.send(message)


async def _lines(wire: int) -> AsyncIterator[bytes]:
    kept = bytearray()
    overlong = False
    while chunk := await _read(wire):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            yield b"" if overlong else bytes(kept + part)
            kept.clear()
            overlong = False
        kept += rest
        if len(kept) > MAX_LINE_BYTES:
            kept.clear()
            overlong = True
    if kept and not overlong:
        yield bytes(kept)


async def _send(
    wire: int,
    outward: MemoryObjectReceiveStream[SessionMessage | bytes],
    receiving: anyio.CancelScope,
    sent: anyio.Event,
) -> None:
    try:
        async with outward:
            async for message in outward:
                await _write(wire, _line(message) + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        # The client is gone, and with it whoever would close our stdin.
        receiving.cancel()
    finally:
        sent.set()


def _line(message: SessionMessage | bytes) -> bytes:
    if isinstance(message, bytes):
        return message
    return message.message.model_dump_json(by_alias=True, exclude_unset=True).encode()


async def _read(wire: int) -> bytes:
    await _until(anyio.wait_readable, wire)
    try:
        return os.read(wire, _CHUNK_BYTES)
    except ConnectionResetError:
        return b""


async def _write(wire: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        await _until(anyio.wait_writable, wire)
        rest = rest[_write_some(wire, rest) :]


def _write_some(wire: int, data: memoryview) -> int:
    if not stat.S_ISSOCK(os.fstat(wire).st_mode):
        return os.write(wire, data[:_PIPE_BYTES])
    with socket.socket(fileno=os.dup(wire)) as connection:
        try:
            return connection.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0


async def _until(ready: Callable[[int], Awaitable[None]], wire: int) -> None:
    try:
        await ready(wire)
    except OSError as error:
        # Regular files and /dev/null cannot be polled; they never block either.
        if error.errno != errno.EPERM:
            raise

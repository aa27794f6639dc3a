"""The engine's attach stream as a plain connection: its frames are taken apart here, in linear time.

An engine that is not on this host, or a runtime that lets no socket through, carries the guest's channel over
the container's own stdin and stdout. One thread moves the bytes in both directions for as long as the
container lives: a connection under TLS may not be read and written at the same time.
"""

from __future__ import annotations

import contextlib
import io
import select
import socket
import ssl
import struct
import threading
from typing import Final, cast

_HEADER: Final = struct.Struct(">BxxxL")
_STDOUT: Final = 1
_CHUNK_BYTES: Final = 256 * 1024
_HELD_BYTES: Final = 1024 * 1024
_KEPT_BYTES: Final = 8 * 1024
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Relay:
    """Bytes from the attach stream to one end of a socket pair and back."""

    def __init__(self, stream: object) -> None:
        self._holder = stream
        self._stream: socket.socket = cast("socket.socket", getattr(stream, "_sock", stream))
        self.connection, self._inner = socket.socketpair()
        for end in (self._stream, self._inner):
            end.setblocking(False)
        self._frames = _Frames()
        self._down = bytearray()
        threading.Thread(target=self._move, name="remit-relay", daemon=True).start()

    def said(self) -> str:
        """Return the end of what the container printed on stderr, untrusted."""
        return bytes(self._frames.said).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End both directions; what is under way is dropped."""
        # The stream belongs to the thread alone, which sees that the other end is gone.
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_RDWR)

    def _move(self) -> None:
        try:
            while self._step():
                self._wait()
        except OSError:
            return
        finally:
            self._let_go()

    def _step(self) -> bool:
        """Move what can be moved now; False when one end is gone."""
        if not self._take_up() and not self._frames.out:
            return False
        if len(self._down) < _HELD_BYTES:
            data = _received(self._inner)
            if data == b"":
                return False
            self._down += data or b""
        _send(self._inner, self._frames.out)
        _send(self._stream, self._down)
        return True

    def _take_up(self) -> bool:
        while len(self._frames.out) < _HELD_BYTES:
            data = _received(self._stream)
            if not data:
                return data is None
            self._frames.add(data)
        return True

    def _wait(self) -> None:
        watcher = select.poll()
        up, down = bool(self._frames.out), bool(self._down)
        reads_stream = select.POLLIN if len(self._frames.out) < _HELD_BYTES else 0
        reads_inner = select.POLLIN if len(self._down) < _HELD_BYTES else 0
        watcher.register(self._stream, reads_stream | (select.POLLOUT if down else 0))
        watcher.register(self._inner, reads_inner | (select.POLLOUT if up else 0))
        watcher.poll()

    def _let_go(self) -> None:
        self._inner.close()
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        # Under TLS the SDK ties the answer to the socket, which stays open as long as that has it.
        response = getattr(self._holder, "_response", None)
        if response is not None:
            response.close()
        self._stream.close()
        if isinstance(self._holder, io.IOBase):
            self._holder.close()


class _Frames:
    """Takes the engine's frames apart: stdout is passed on, of stderr the end is kept."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.said = bytearray()
        self._header = bytearray()
        self._kind = 0
        self._left = 0

    def add(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._left == 0:
                view = self._begin(view)
                continue
            part, view = view[: self._left], view[self._left :]
            self._left -= len(part)
            if self._kind == _STDOUT:
                self.out += part
            else:
                self.said = (self.said + part)[-_KEPT_BYTES:]

    def _begin(self, view: memoryview) -> memoryview:
        missing = _HEADER.size - len(self._header)
        self._header += view[:missing]
        if len(self._header) == _HEADER.size:
            self._kind, self._left = _HEADER.unpack(self._header)
            self._header.clear()
        return view[missing:]


def _received(end: socket.socket) -> bytes | None:
    """Return what has come, nothing at the end, and None when there is nothing now."""
    try:
        return end.recv(_CHUNK_BYTES)
    except _NOT_NOW:
        return None


def _send(end: socket.socket, data: bytearray) -> None:
    try:
        while data:
            del data[: end.send(memoryview(data)[:_CHUNK_BYTES].tobytes())]
    except _NOT_NOW:
        return

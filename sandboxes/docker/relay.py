"""The engine's attach stream as a plain connection: its frames are taken apart here, in linear time.

An engine that is not on this host, or a runtime that lets no socket through, carries the guest's channel over
the container's own stdin and stdout. Two threads move the bytes, for as long as the container lives.
"""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
from typing import Final, cast

_HEADER: Final = struct.Struct(">BxxxL")
_STDOUT: Final = 1
_CHUNK_BYTES: Final = 256 * 1024
_KEPT_BYTES: Final = 8 * 1024


class Relay:
    """Bytes from the attach stream to one end of a socket pair and back."""

    def __init__(self, stream: object) -> None:
        self._holder = stream
        self._moving = 2
        self._counting = threading.Lock()
        self._stream: socket.socket = cast("socket.socket", getattr(stream, "_sock", stream))
        self._stream.settimeout(None)
        self.connection, self._inner = socket.socketpair()
        self._said = bytearray()
        for name, move in (("down", self._move_down), ("up", self._move_up)):
            threading.Thread(target=move, name=f"remit-relay-{name}", daemon=True).start()

    def said(self) -> str:
        """Return the end of what the container printed on stderr, untrusted."""
        return bytes(self._said).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End both directions; what is under way is dropped."""
        for end in (self._stream, self._inner):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _stop(self) -> None:
        """End both directions; the second one to stop lets go of the descriptors."""
        self.close()
        with self._counting:
            self._moving -= 1
            last = self._moving == 0
        if last:
            self._inner.close()
            self._stream.close()
            if isinstance(self._holder, io.IOBase):
                self._holder.close()

    def _move_down(self) -> None:
        try:
            while data := self._inner.recv(_CHUNK_BYTES):
                self._stream.sendall(data)
        except OSError:
            return
        finally:
            self._stop()

    def _move_up(self) -> None:
        try:
            while header := self._read(_HEADER.size):
                kind, length = _HEADER.unpack(header)
                if not self._pass_on(kind, length):
                    return
        except OSError:
            return
        finally:
            self._stop()

    def _pass_on(self, kind: int, length: int) -> bool:
        while length > 0:
            data = self._stream.recv(min(length, _CHUNK_BYTES))
            if not data:
                return False
            length -= len(data)
            if kind == _STDOUT:
                self._inner.sendall(data)
            else:
                self._said = (self._said + data)[-_KEPT_BYTES:]
        return True

    def _read(self, size: int) -> bytes | None:
        have = b""
        while len(have) < size:
            data = self._stream.recv(size - len(have))
            if not data:
                return None
            have += data
        return have

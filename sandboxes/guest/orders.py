"""A command on its way from the guest to what starts it: its words, and the pipes that are its own."""

from __future__ import annotations

import _socket
import os
import struct

from sandboxes.guest import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCM_RIGHTS = 1

_DESCRIPTOR = struct.Struct("=i")
_MOST_DESCRIPTORS = 2
_FIRST_READ_BYTES = 64 * 1024


class Order:
    """A command with the descriptors that it gets."""

    def __init__(self, words: dict[str, Any], descriptors: list[int]) -> None:
        self.words = words
        self.output = descriptors[0]
        self.source = descriptors[1] if len(descriptors) > 1 else None

    def close(self) -> None:
        """Let go of the descriptors: the command has its own by now."""
        os.close(self.output)
        if self.source is not None:
            os.close(self.source)


def send(channel: _socket.socket, words: dict[str, Any], descriptors: list[int]) -> None:
    """Give whoever waits at the other end a command.

    Raises:
        BrokenPipeError: There is nobody any more.
        ConnectionResetError: The same.
    """
    frame = frames.encode_frame(words)
    raw = b"".join(map(_DESCRIPTOR.pack, descriptors))
    ancillary = [(_socket.SOL_SOCKET, SCM_RIGHTS, raw)]
    sent = channel.sendmsg([frame], ancillary, _socket.MSG_NOSIGNAL)
    if sent < len(frame):
        channel.sendall(frame[sent:], _socket.MSG_NOSIGNAL)


def receive(channel: _socket.socket) -> Order | None:
    """Wait for a command; None when the guest has let go of the channel."""
    space = _socket.CMSG_SPACE(_MOST_DESCRIPTORS * _DESCRIPTOR.size)
    data, ancillary, _, _ = channel.recvmsg(_FIRST_READ_BYTES, space, _socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    descriptors = [
        number
        for level, kind, raw in ancillary
        if level == _socket.SOL_SOCKET and kind == SCM_RIGHTS
        for (number,) in _DESCRIPTOR.iter_unpack(raw)
    ]
    length = frames.frame_length(data[: frames.PREFIX_BYTES])
    payload = bytearray(data[frames.PREFIX_BYTES :])
    while len(payload) < length:
        more = channel.recv(length - len(payload))
        if not more:
            return None
        payload += more
    return Order(frames.decode_payload(payload), descriptors)

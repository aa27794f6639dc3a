"""The guest's end of the channel: one socket, or two pipes, on descriptors that no stray print reaches."""

from __future__ import annotations

import _socket
import os

_PLACE = 900


class Channel:
    """Takes the descriptors and closes all others but the first three."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = _PLACE
        self.writing = _PLACE if reading == writing else _PLACE + 1
        os.dup2(reading, self.reading, inheritable=False)
        if reading != writing:
            os.dup2(writing, self.writing, inheritable=False)
        os.closerange(3, _PLACE)

    def receive_into(self, room: memoryview) -> int:
        """Read what there is."""
        return os.readv(self.reading, [room])

    def send(self, data: memoryview) -> int:
        """Write as much as is taken now."""
        return os.write(self.writing, data)

    def send_all(self, data: bytes) -> None:
        """Write everything, however long that takes."""
        self.set_blocking(True)
        view = memoryview(data)
        while view:
            view = view[os.write(self.writing, view) :]

    def send_with(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Write a first frame with what the kernel is to attach to it; only over a socket."""
        socket = _socket.socket(fileno=self.writing)
        try:
            socket.sendmsg([data], ancillary)
        finally:
            socket.detach()

    def set_blocking(self, blocking: bool) -> None:
        """Say whether reading and writing wait."""
        os.set_blocking(self.reading, blocking)
        os.set_blocking(self.writing, blocking)

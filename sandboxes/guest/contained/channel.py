"""The guest's end of the channel: a unix socket, or the container's own stdin and stdout."""

from __future__ import annotations

import os

_PLACE = 900


class Channel:
    """One or two descriptors far above those that a stray print could reach."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = _PLACE
        self.writing = _PLACE if reading == writing else _PLACE + 1
        os.dup2(reading, self.reading, inheritable=False)
        if reading != writing:
            os.dup2(writing, self.writing, inheritable=False)

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

    def set_blocking(self, blocking: bool) -> None:
        """Say whether reading and writing wait."""
        os.set_blocking(self.reading, blocking)
        os.set_blocking(self.writing, blocking)


def open_channel(reading: int, writing: int) -> Channel:
    """Take the descriptors over which the program came; stdin and stdout then are nobody's."""
    channel = Channel(reading, writing)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    # What is printed is untrusted talk, and belongs on stderr.
    os.dup2(2, 1)
    os.closerange(3, _PLACE)
    return channel

"""The guest's end of a keeper and its command."""

from __future__ import annotations

import os

from sandboxes.guest import frames
from sandboxes.guest.contained import keeper
from sandboxes.guest.contained.report import EXITED, FAILED, READY, STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGUSR1 = 10


class Cell:
    """A keeper that waits with a child for the words of a command.

    A dressed child has given up everything before it waits, so that it can be looked at from outside. Others
    stay root until then: a command that runs meanwhile can neither signal nor stop them.
    """

    def __init__(self, settings: dict[str, Any], dressed: bool = False) -> None:
        self.ready = False
        self.reaped = False
        self.failure: int | None = None
        self.cpu_microseconds = 0
        self.peak_bytes = 0
        self.left_behind = 0
        go_read, self.go = os.pipe()
        self.status, status_write = os.pipe()
        self.output, output_write = os.pipe()
        input_read, self.input = os.pipe()
        inside = (go_read, status_write, output_write, input_read)
        self.pid = os.fork()
        if self.pid == 0:
            keeper.keep(settings, *inside, dressed)
        for descriptor in inside:
            os.close(descriptor)
        for descriptor in (self.status, self.output, self.input):
            os.set_blocking(descriptor, False)

    def start(self, words: dict[str, Any]) -> None:
        """Send the waiting child its command."""
        data = memoryview(frames.encode_frame(words))
        while data:
            data = data[os.write(self.go, data) :]
        os.close(self.go)
        self.go = -1

    def kill(self) -> None:
        """Have the keeper kill the command and everything below it."""
        try:
            os.kill(self.pid, _SIGUSR1)
        except ProcessLookupError:
            return

    def messages(self) -> list[tuple[int, int]]:
        """Return what keeper and child have reported since the last call."""
        found: list[tuple[int, int]] = []
        while True:
            try:
                raw = os.read(self.status, STATUS.size)
            except BlockingIOError:
                return found
            if len(raw) < STATUS.size:
                return found
            kind, value, cpu, peak, left = STATUS.unpack(raw)
            if kind == READY:
                self.ready = True
            elif kind == FAILED:
                self.failure = value
            elif kind == EXITED:
                self.cpu_microseconds, self.peak_bytes, self.left_behind = cpu, peak, left
            found.append((kind, value))

    def reap(self) -> bool:
        """Collect the keeper once it has ended; False while it lives."""
        if not self.reaped:
            try:
                self.reaped = os.waitpid(self.pid, os.WNOHANG)[0] != 0
            except ChildProcessError:
                self.reaped = True
        return self.reaped

    def close_input(self) -> None:
        """Let the command read end-of-file."""
        if self.input >= 0:
            os.close(self.input)
            self.input = -1

    def close(self) -> None:
        """Close every descriptor."""
        self.close_input()
        for descriptor in (self.go, self.status, self.output):
            if descriptor >= 0:
                os.close(descriptor)
        self.go = self.status = self.output = -1

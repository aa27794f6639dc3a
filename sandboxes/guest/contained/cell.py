"""The guest's end of a keeper and its commands."""

from __future__ import annotations

import _socket
import os

from sandboxes.guest.contained import keeper, orders, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGUSR1 = 10


class Cell:
    """A keeper that waits with a child for the words of a command, again after each that left nothing.

    A dressed child has given up everything before it waits, so that it can be looked at from outside. Others
    stay root until then: a command that runs meanwhile can neither signal nor stop them.
    """

    def __init__(self, settings: dict[str, Any], dressed: bool = False) -> None:
        self.ready = False
        self.reaped = False
        self.failure: int | None = None
        self.spent_microseconds = 0
        self.output = -1
        self.input = -1
        self.ended = False
        self._forget()
        self._orders, orders_end = _socket.socketpair()
        self.status, status = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(status)
            orders_end.close()
            self.close()
            raise
        if self.pid == 0:
            keeper.keep(settings, orders_end.fileno(), status, dressed)
        orders_end.close()
        os.close(status)
        os.set_blocking(self.status, False)

    def start(self, words: dict[str, Any], has_input: bool) -> None:
        """Send the waiting child its command, with new pipes: a writer of an earlier one reaches nobody.

        Raises:
            BrokenPipeError: The keeper has ended.
        """
        self._forget()
        self.output, output = os.pipe()
        os.set_blocking(self.output, False)
        given = [output]
        if has_input:
            source, self.input = os.pipe()
            os.set_blocking(self.input, False)
            given.append(source)
        try:
            orders.send(self._orders, words, given)
        finally:
            for descriptor in given:
                os.close(descriptor)

    def kill(self) -> None:
        """Have the keeper kill the command and everything below it."""
        self.spoiled = True
        # The number is the keeper's as long as nobody has collected it.
        if not self.reap():
            os.kill(self.pid, _SIGUSR1)

    def messages(self) -> list[tuple[int, int]]:
        """Return what keeper and child have reported since the last call."""
        found: list[tuple[int, int]] = []
        while not self.ended:
            try:
                raw = os.read(self.status, report.STATUS.size)
            except BlockingIOError:
                return found
            if len(raw) < report.STATUS.size:
                return found
            kind, value, cpu, peak, left = report.STATUS.unpack(raw)
            if kind == report.READY:
                self.ready = True
            elif kind == report.FAILED:
                self.failure = value
            elif kind in (report.EXITED, report.EXITED_LAST):
                self.cpu_microseconds, self.peak_bytes, self.left_behind = cpu, peak, left
                self.spent_microseconds += cpu
                self.spoiled = self.spoiled or kind == report.EXITED_LAST
            self.ended = kind in (report.EXITED, report.EXITED_LAST, report.REFUSED)
            found.append((kind, value))
        return found

    @property
    def usable(self) -> bool:
        """Whether the keeper waits for a command, as far as it has said by now."""
        return not any(kind != report.READY for kind, _ in self.messages())

    @property
    def reusable(self) -> bool:
        """Whether nothing of the command that ended can be left, and nothing out of the ordinary happened."""
        return self.ended and not (self.spoiled or self.left_behind or self.failure or self.reaped)

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

    def close_pipes(self) -> None:
        """Let go of the pipes of a command that has ended."""
        self.close_input()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def close(self) -> None:
        """Close every descriptor: the keeper ends."""
        self.close_pipes()
        self._orders.close()
        os.close(self.status)

    def _forget(self) -> None:
        """Know nothing of an earlier command."""
        self.ended = False
        self.spoiled = False
        self.cpu_microseconds = 0
        self.peak_bytes = 0
        self.left_behind = 0

"""What runs one command after another, as the guest sees it: orders in, reports out, new pipes for each.

How it comes into being, is killed and collected is the subclass's: a namespace of its own below bubblewrap,
a keeper in a container.
"""

from __future__ import annotations

import _socket
import os

from sandboxes.guest import orders, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Cell:
    """The guest's end of it.

    A subclass makes the process at the other end, and closes what that process has with ``_hand_over``.
    """

    pid: int

    def __init__(self) -> None:
        self.ready = False
        self.reaped = False
        self.failure: int | None = None
        self.commands = 0
        self.spent_microseconds = 0
        self.output = -1
        self.input = -1
        self.ended = False
        self._forget()
        self._orders, self.orders_end = _socket.socketpair()
        self.status, self.status_end = os.pipe()

    def start(self, words: dict[str, Any], has_input: bool) -> None:
        """Send the next command, with pipes of its own: a writer of an earlier one reaches nobody.

        Raises:
            BrokenPipeError: The other end is gone.
            ConnectionResetError: The same.
        """
        self._forget()
        self.commands += 1
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
        """Kill the command and everything that it has started."""
        raise NotImplementedError

    def reap(self) -> bool:
        """Collect the process at the other end once it has ended; False while it lives."""
        raise NotImplementedError

    def spoil(self) -> None:
        """Let no other command follow this one."""
        self.spoiled = True

    def messages(self) -> list[tuple[int, int]]:
        """Return what was reported since the last call, up to the end of a command."""
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
        """Whether it waits for a command, as far as it has said by now."""
        return not any(kind != report.READY for kind, _ in self.messages())

    @property
    def reusable(self) -> bool:
        """Whether nothing of the command that ended can be left, and nothing out of the ordinary happened."""
        return self.ended and not (self.spoiled or self.left_behind or self.failure or self.reaped)

    def close_pipes(self) -> None:
        """Let go of the pipes of a command that has ended."""
        self.close_input()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def close_input(self) -> None:
        """Let the command read end-of-file."""
        if self.input >= 0:
            os.close(self.input)
            self.input = -1

    def close(self) -> None:
        """Close every descriptor."""
        self.close_pipes()
        self._orders.close()
        os.close(self.status)

    def _hand_over(self) -> None:
        """Close here what only the process at the other end needs."""
        self.orders_end.close()
        os.close(self.status_end)
        os.set_blocking(self.status, False)

    def _forget(self) -> None:
        """Know nothing of an earlier command."""
        self.ended = False
        self.spoiled = False
        self.cpu_microseconds = 0
        self.peak_bytes = 0
        self.left_behind = 0

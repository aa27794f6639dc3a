"""Namespaces for commands: made ahead of them, used by one at a time, ended with whatever went wrong.

A cell is an init (see ``init``) in a nested PID namespace, not dumpable, which has given up everything a
command may not have. Running a command then costs one message and one spawn. When it ends, init kills and
collects whatever it left behind and only then reports; a cell whose command left something behind, met a
limit or was killed is not used again. Nor is one that served while another command ran: a descriptor of the
cell's /proc, handed to that other one, would show it what comes next.
"""

from __future__ import annotations

import _socket
import os

from sandboxes.guest import frames, init, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# With an IPC namespace of its own too: the settings of the sandbox's one could be written by every command.
_NAMESPACES = system.CLONE_NEWUSER | system.CLONE_NEWPID | system.CLONE_NEWNS | system.CLONE_NEWIPC
# init's own work counts towards its limit of CPU time, as every process's does.
_MOST_COMMANDS = 1000


class Cell:
    """The guest's end of a cell."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.ready = False
        self.reaped = False
        self.failure: int | None = None
        self.commands = 0
        self.spent_microseconds = 0
        self.output = -1
        self.input = -1
        self._forget()
        self._orders, orders = _socket.socketpair()
        self.status, status = os.pipe()
        self.pid = system.clone(_NAMESPACES)
        if self.pid == 0:
            init.serve(settings, orders.fileno(), status)
        self.pidfd = system.pidfd_open(self.pid)
        orders.close()
        os.close(status)
        os.set_blocking(self.status, False)

    def start(self, words: dict[str, Any], has_input: bool) -> None:
        """Send init the next command, with pipes of its own: a writer of an earlier one reaches nobody."""
        self._forget()
        self.commands += 1
        self.output, output = os.pipe()
        os.set_blocking(self.output, False)
        given = [output]
        if has_input:
            source, self.input = os.pipe()
            os.set_blocking(self.input, False)
            given.append(source)
        raw = b"".join(map(init.DESCRIPTOR.pack, given))
        frame = frames.encode_frame(words)
        try:
            sent = self._orders.sendmsg([frame], [(_socket.SOL_SOCKET, init.SCM_RIGHTS, raw)])
            if sent < len(frame):
                self._orders.sendall(frame[sent:])
        finally:
            for descriptor in given:
                os.close(descriptor)

    def kill(self) -> None:
        """Kill everything in the cell; its end shows on ``pidfd``."""
        self.spoil()
        system.pidfd_kill(self.pidfd)

    def spoil(self) -> None:
        """Let the cell end with its command."""
        self.spoiled = True

    def messages(self) -> list[tuple[int, int]]:
        """Return what init has reported since the last call."""
        found: list[tuple[int, int]] = []
        while True:
            try:
                raw = os.read(self.status, init.STATUS.size)
            except BlockingIOError:
                return found
            if len(raw) < init.STATUS.size:
                return found
            kind, value, cpu, peak, left = init.STATUS.unpack(raw)
            if kind == init.READY:
                self.ready = True
            elif kind == init.FAILED:
                self.failure = value
            elif kind == init.EXITED:
                self.cpu_microseconds, self.peak_bytes, self.left_behind = cpu, peak, left
                self.spent_microseconds += cpu
                self.ended = True
            found.append((kind, value))
            if self.ended:
                return found

    @property
    def reusable(self) -> bool:
        """Whether nothing of the command that ended can be left, and nothing out of the ordinary happened."""
        clean = self.ended and not (self.spoiled or self.left_behind or self.failure or self.reaped)
        return clean and self.commands < _MOST_COMMANDS

    def reap(self) -> bool:
        """Collect init once it has ended; False while it lives."""
        if not self.reaped:
            pid, _, used = os.wait4(self.pid, os.WNOHANG)
            if pid == 0:
                return False
            self.reaped = True
            if not self.cpu_microseconds:
                self.cpu_microseconds = int((used.ru_utime + used.ru_stime) * 1e6)
                self.peak_bytes = used.ru_maxrss * 1024
        return True

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
        """Close every descriptor of a cell that has ended."""
        self.close_pipes()
        self._orders.close()
        os.close(self.status)
        os.close(self.pidfd)

    def _forget(self) -> None:
        """Know nothing of an earlier command."""
        self.ended = False
        self.spoiled = False
        self.cpu_microseconds = 0
        self.peak_bytes = 0
        self.left_behind = 0

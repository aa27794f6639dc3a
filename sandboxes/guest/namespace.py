"""Namespaces for commands: made ahead of them, used by one at a time, ended with whatever went wrong.

The process in a cell is an init (see ``init``) in a nested PID namespace, not dumpable, which has given up
everything a command may not have. Running a command then costs one message and one spawn. When it ends, init
kills and collects whatever it left behind and only then reports; a cell whose command left something behind,
met a limit or was killed is not used again. Nor is one that served while another command ran: a descriptor
of the cell's /proc, handed to that other one, would show it what comes next.
"""

from __future__ import annotations

import os

from sandboxes.guest import init, system
from sandboxes.guest.cell import Cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# With an IPC namespace of its own too: the settings of the sandbox's one could be written by every command.
_NAMESPACES = system.CLONE_NEWUSER | system.CLONE_NEWPID | system.CLONE_NEWNS | system.CLONE_NEWIPC
# init's own work counts towards its limit of CPU time, as every process's does.
_MOST_COMMANDS = 1000


class NamespaceCell(Cell):
    """A cell whose commands have namespaces of their own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.pid = system.clone(_NAMESPACES)
        if self.pid == 0:
            init.serve(settings, self.orders_end.fileno(), self.status_end)
        self.pidfd = system.pidfd_open(self.pid)
        self._hand_over()

    def kill(self) -> None:
        """Kill everything in the cell; its end shows on ``pidfd``."""
        self.spoil()
        system.pidfd_kill(self.pidfd)

    @property
    def reusable(self) -> bool:
        """Whether nothing of the command that ended can be left, and nothing out of the ordinary happened."""
        return super().reusable and self.commands < _MOST_COMMANDS

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

    def close(self) -> None:
        """Close every descriptor of a cell that has ended."""
        super().close()
        os.close(self.pidfd)

"""The guest's life below bubblewrap: harden, mount, park a cell, then answer until the channel closes."""

from __future__ import annotations

import _socket
import gc
import select
import sys

from sandboxes.guest import files, frames, orders, prepare, system, watch
from sandboxes.guest.channel import Channel
from sandboxes.guest.command import Command
from sandboxes.guest.loop import Loop, await_ready, harden
from sandboxes.guest.namespace import NamespaceCell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandboxes.guest.cell import Cell


def main() -> None:
    """Run as PID 1 of the sandbox until the host lets go of the channel."""
    frames.decode_to_views()
    harden()
    descriptor = int(sys.argv[1])
    guest = Guest(Channel(descriptor, descriptor))
    guest.start()
    guest.serve()


class Guest(Loop):
    """The guest whose commands have namespaces of their own."""

    def start(self) -> None:
        """Take the settings, build the workspace, park the first cell and say so."""
        self._running: dict[int, Command] = {}
        hello = self.receive_blocking()
        self._settings: dict[str, Any] = hello["settings"]
        self.workspace = prepare.prepare(self._settings)
        system.keep_capabilities((system.CAP_SYS_PTRACE,))
        # What is there by now stays, and is shared with every init as long as no collection looks at it.
        gc.freeze()
        first = self._new_cell()
        await_ready(first)
        self.parked.append(first)
        ready = {
            "n": hello["n"],
            "k": "ready",
            "strategy": self.workspace.strategy,
            "init": first.pid,
            "shell": system.shell(),
        }
        upper = self.workspace.upper.to_bytes(4, sys.byteorder)
        self.channel.send_with(frames.encode_frame(ready), [(_socket.SOL_SOCKET, orders.SCM_RIGHTS, upper)])

    def file_operation(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a file operation asks for and return the reply."""
        return files.perform(self.workspace, operation, request)

    def used_bytes(self) -> int:
        """Return what the workspace's changes occupy."""
        return watch.used_bytes(prepare.STORE)

    def begin(self, request: dict[str, Any]) -> Command:
        """Return a command in a parked cell, or in a new one."""
        cell = self.parked.pop() if self.parked else self._new_cell()
        command = Command(cell, request, self._settings, self.workspace.mount, prepare.STORE)
        self._running[cell.pid] = command
        return command

    def began(self, command: Command) -> None:
        """Let no cell serve again that served beside another one."""
        del command
        if len(self.commands) > 1:
            for each in self.commands.values():
                each.cell.spoil()

    def end(self, command: Command) -> None:
        """Forget which command the cell had."""
        del self._running[command.cell.pid]

    def give_up(self, cell: Cell) -> None:
        """Kill it; what is left to do shows on its pidfd."""
        if not cell.reaped:
            cell.kill()

    def park(self) -> None:
        """Make a cell ahead of the command that will use it."""
        self.parked.append(self._new_cell())

    def _new_cell(self) -> NamespaceCell:
        cell = NamespaceCell(self._settings)
        self.register(cell.pidfd, select.POLLIN, lambda: self._notice_end(cell))
        return cell

    def _notice_end(self, cell: NamespaceCell) -> None:
        """React to the end of a cell: the last sign of a command that was killed."""
        if not cell.reap():
            return
        command = self._running.get(cell.pid)
        if command is not None:
            self.end_command(command)
        if cell in self.parked:
            self.parked.remove(cell)
        self.unregister(cell.pidfd)
        cell.close()

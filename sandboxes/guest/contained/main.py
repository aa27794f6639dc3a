"""The guest's life in a container: take the settings, park a cell, answer until the channel closes."""

from __future__ import annotations

import errno
import os
import time

from sandboxes.guest import files, frames, paths, prepare, system, watch
from sandboxes.guest.channel import Channel
from sandboxes.guest.contained import owner, sweep
from sandboxes.guest.contained.cell import KeeperCell
from sandboxes.guest.contained.command import ContainedCommand
from sandboxes.guest.loop import Loop, await_ready, harden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandboxes.guest.cell import Cell
    from sandboxes.guest.command import Command

_HOME = "/tmp/home"


def main(reading: int, writing: int) -> None:
    """Run as PID 1 of the container until the host lets go of the channel."""
    frames.decode_to_views()
    harden()
    channel = Channel(reading, writing)
    _take_standard_descriptors()
    guest = Guest(channel)
    guest.start()
    guest.serve()


def _take_standard_descriptors() -> None:
    """Let stdin and stdout, over which the program may have come, be nobody's."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    # What is printed is untrusted talk, and belongs on stderr.
    os.dup2(2, 1)
    os.close(null)


class Guest(Loop):
    """The guest whose commands have a keeper each."""

    tick_milliseconds = 10
    idle_milliseconds = 60000

    def start(self) -> None:
        """Take the settings, look at the workspace, park the first cell and say so."""
        hello = self.receive_blocking()
        self._settings: dict[str, Any] = hello["settings"]
        try:
            self._prepare()
        except OSError as error:
            detail = "%s: %s" % (error.filename, error.strerror)
            self.channel.send_all(frames.encode_frame({"n": hello["n"], "k": "failed", "detail": detail}))
            raise
        ready = {
            "n": hello["n"],
            "k": "ready",
            "strategy": self._settings["strategy"],
            "init": os.getpid(),
            "shell": system.shell(),
        }
        self.channel.send_all(frames.encode_frame(ready))

    def file_operation(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a file operation asks for with the rights of a command, and return the reply."""
        with self._as_owner:
            return files.perform(self._workspace, operation, request)

    def used_bytes(self) -> int:
        """Return what the workspace's changes occupy."""
        return watch.used_bytes(self._settings["mount"])

    def begin(self, request: dict[str, Any]) -> Command | None:
        """Return a command in the cell that has waited longest and still does, or in a new one."""
        cell = self._take_cell()
        return None if cell is None else ContainedCommand(cell, request, self._settings)

    def note(self, command: Command) -> None:
        """Take in what a command's keeper says; without it nobody knows what the command has left behind."""
        cell = command.cell
        if command.note() or (cell.reap() and command.note()):
            self.end_command(command)
        elif cell.reaped:
            os.write(2, b"a keeper failed: %d\n" % (cell.failure or 0))
            os._exit(1)

    def end(self, command: Command) -> None:
        """End what a kernel without subreapers let get away from the command's keeper."""
        del command
        if self._settings["subreaper"]:
            return
        keepers = {other.cell.pid for other in self.commands.values()}
        if keepers:
            sweep.end_strays(self._settings, keepers)
        else:
            sweep.end_all(self._settings)

    def give_up(self, cell: Cell) -> None:
        """Close it: its keeper ends."""
        cell.close()
        self._reap()

    def park(self) -> None:
        """Make a cell ahead of the command that will use it, if there can be one now."""
        self._reap()
        try:
            self.parked.append(KeeperCell(self._settings))
        except OSError as error:
            # As many processes as there may be: those of a command that is about to be stopped.
            if error.errno != errno.EAGAIN:
                raise

    def each_turn(self) -> None:
        """End when the sandbox's time is over."""
        if time.monotonic() >= self._ends:
            os._exit(0)

    def _prepare(self) -> None:
        self._ends = time.monotonic() + self._settings["lifetime_seconds"]
        self._settings["subreaper"] = _knows_subreapers()
        owner.take_group(self._settings)
        self._as_owner = owner.AsOwner(self._settings["uid"])
        with self._as_owner:
            os.mkdir(_HOME, 0o755)
            self._workspace = self._open_workspace()
        # Used first: while a command runs, nothing that has its uid may wait.
        first = KeeperCell(self._settings, dressed=True)
        await_ready(first)
        self.parked.append(first)

    def _open_workspace(self) -> prepare.Workspace:
        mount = self._settings["mount"]
        paths.openat2_missing = self._settings["opener"] == "walk"
        prepare.STORE = mount
        root = os.open(system.fs_bytes(mount), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return prepare.Workspace(mount, root, -1, self._settings["strategy"])

    def _take_cell(self) -> Cell | None:
        while self.parked:
            cell = self.parked.pop(0)
            if cell.usable:
                return cell
            cell.close()
        self.park()
        return self.parked.pop() if self.parked else None

    def _reap(self) -> None:
        """Collect keepers that have ended, and tell the cells of those that still had a command."""
        keepers = {command.cell.pid: command.cell for command in self.commands.values()}
        try:
            while True:
                pid = os.waitpid(-1, os.WNOHANG)[0]
                if pid == 0:
                    return
                if pid in keepers:
                    keepers[pid].reaped = True
        except ChildProcessError:
            return


def _knows_subreapers() -> bool:
    """Try it in a child: PID 1 is a subreaper anyway, and may ask to be one on every kernel."""
    child = os.fork()
    if child == 0:
        try:
            system.set_child_subreaper()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0

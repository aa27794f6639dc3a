"""The guest's life in a container: take the settings, park a cell, answer until the channel closes."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]
import errno
import os
import select
import time

from sandboxes.guest import files, frames, paths, prepare, system, watch
from sandboxes.guest.contained import owner, sweep
from sandboxes.guest.contained.cell import Cell
from sandboxes.guest.contained.channel import Channel, open_channel
from sandboxes.guest.contained.command import Command
from sandboxes.guest.contained.report import FAILED
from sandboxes.guest.output import new_sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TICK_MILLISECONDS = 10
_PARK_MILLISECONDS = 10000
_MOST_PARKED = 4
_LONGEST_WAIT_MILLISECONDS = 60000
_FIRST_SIGNAL, _LAST_SIGNAL = 1, 64
_HOME = "/tmp/home"


def main(reading: int, writing: int) -> None:
    """Run as PID 1 of the container until the host lets go of the channel."""
    system.set_dumpable(False)
    for number in range(_FIRST_SIGNAL, _LAST_SIGNAL + 1):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    os.chdir("/")
    guest = Guest(open_channel(reading, writing))
    guest.start()
    guest.serve()


class Guest:
    """One poll loop over the channel and every running command."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reader = frames.FrameReader()
        self._unsent: list[memoryview] = []
        self._poll = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}
        self._commands: dict[bytes, Command] = {}
        self._parked: list[Cell] = []
        self._next_check = 0.0
        self._park_due = 0.0

    def start(self) -> None:
        """Take the settings, look at the workspace, park the first cell and say so."""
        hello = self._receive_blocking()
        self._settings: dict[str, Any] = hello["settings"]
        try:
            self._prepare()
        except OSError as error:
            detail = "%s: %s" % (error.filename, error.strerror)
            self._channel.send_all(frames.encode_frame({"n": hello["n"], "k": "failed", "detail": detail}))
            raise
        ready = {
            "n": hello["n"],
            "k": "ready",
            "strategy": self._settings["strategy"],
            "init": os.getpid(),
            "shell": system.shell(),
        }
        self._channel.send_all(frames.encode_frame(ready))
        self._channel.set_blocking(False)
        self._register(self._channel.reading, select.POLLIN, self._receive)

    def _prepare(self) -> None:
        self._ends = time.monotonic() + self._settings["lifetime_seconds"]
        self._settings["subreaper"] = _knows_subreapers()
        owner.take_group(self._settings)
        self._as_owner = owner.AsOwner(self._settings["uid"])
        with self._as_owner:
            os.mkdir(_HOME, 0o755)
            self._workspace = self._open_workspace()
        # Used first: while a command runs, nothing that has its uid may wait.
        first = Cell(self._settings, dressed=True)
        _await_parked(first)
        self._parked.append(first)

    def _open_workspace(self) -> prepare.Workspace:
        mount = self._settings["mount"]
        paths.openat2_missing = self._settings["opener"] == "walk"
        prepare.STORE = mount
        root = os.open(system.fs_bytes(mount), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return prepare.Workspace(mount, root, -1, self._settings["strategy"])

    def serve(self) -> None:
        """Answer until the channel ends or the sandbox's time is over."""
        while True:
            timeout = _TICK_MILLISECONDS if self._commands else _LONGEST_WAIT_MILLISECONDS
            for descriptor, _ in self._poll.poll(timeout):
                action = self._actions.get(descriptor)
                if action is not None:
                    action()
            if time.monotonic() >= self._ends:
                os._exit(0)
            if self._commands:
                self._check_commands()
            # A short command is not slowed down by the making of the next cell.
            if not self._parked and (not self._commands or time.monotonic() >= self._park_due):
                self._park()

    def _register(self, descriptor: int, events: int, action: Callable[[], None]) -> None:
        self._actions[descriptor] = action
        self._poll.register(descriptor, events)

    def _unregister(self, descriptor: int) -> None:
        if self._actions.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def _receive_blocking(self) -> dict[str, Any]:
        while True:
            payload = self._read_some()
            if payload is not None:
                return frames.decode_payload(payload)

    def _read_some(self) -> bytearray | None:
        count = self._channel.receive_into(self._reader.room())
        if count == 0:
            os._exit(0)
        return self._reader.filled(count)

    def _receive(self) -> None:
        try:
            while True:
                payload = self._read_some()
                if payload is not None:
                    self._answer(frames.decode_payload(payload))
        except BlockingIOError:
            return
        except ConnectionError:
            os._exit(0)

    def _answer(self, request: dict[str, Any]) -> None:
        operation = request["o"]
        if operation in files.OPERATIONS:
            with self._as_owner:
                reply = files.perform(self._workspace, operation, request)
            self._reply(request["n"], reply)
        elif operation in ("exec", "exec_last"):
            self._start_command(request)
        elif operation == "cancel":
            self._cancel(request["of"])
        elif operation == "used":
            self._reply(request["n"], {"k": "used", "bytes": watch.used_bytes(self._settings["mount"])})
        elif operation == "ping":
            self._reply(request["n"], {"k": "pong"})
        else:
            raise frames.FrameError("unknown operation")

    def _reply(self, nonce: bytes, fields: dict[str, Any]) -> None:
        fields["n"] = nonce
        self._unsent.append(memoryview(frames.encode_frame(fields)))
        self._send()

    def _send(self) -> None:
        try:
            while self._unsent:
                rest = self._unsent[0][self._channel.send(self._unsent[0]) :]
                if rest:
                    self._unsent[0] = rest
                else:
                    del self._unsent[0]
        except BlockingIOError:
            self._wait_to_send()
            return
        except ConnectionError:
            os._exit(0)
        self._wait_to_receive()

    def _wait_to_send(self) -> None:
        if self._channel.writing != self._channel.reading:
            if self._channel.writing not in self._actions:
                self._register(self._channel.writing, select.POLLOUT, self._send)
            return
        self._poll.modify(self._channel.reading, select.POLLIN | select.POLLOUT)
        self._actions[self._channel.reading] = self._send_and_receive

    def _wait_to_receive(self) -> None:
        if self._channel.writing != self._channel.reading:
            self._unregister(self._channel.writing)
        elif self._actions.get(self._channel.reading) == self._send_and_receive:
            self._actions[self._channel.reading] = self._receive
            self._poll.modify(self._channel.reading, select.POLLIN)

    def _send_and_receive(self) -> None:
        self._send()
        self._receive()

    def _park(self) -> None:
        self._reap()
        try:
            self._parked.append(Cell(self._settings))
        except OSError as error:
            # As many processes as there may be: those of a command that is about to be stopped.
            if error.errno != errno.EAGAIN:
                raise

    def _take_cell(self) -> Cell | None:
        """Give the cell that has waited longest and still does, or a new one."""
        while self._parked:
            cell = self._parked.pop(0)
            if cell.usable:
                return cell
            cell.close()
        self._park()
        return self._parked.pop() if self._parked else None

    def _start_command(self, request: dict[str, Any]) -> None:
        cell = self._take_cell()
        if cell is None:
            self._reply(request["n"], _refused())
            return
        command = Command(cell, request, self._settings)
        self._park_due = time.monotonic() + _TICK_MILLISECONDS / 1000
        if not self._commands:
            self._next_check = self._park_due
        self._commands[command.nonce] = command
        command.start()
        self._register(cell.status, select.POLLIN, lambda: self._note(command))
        self._register(cell.output, select.POLLIN, lambda: self._collect(command))
        if command.has_input:
            self._register(cell.input, select.POLLOUT, lambda: self._feed(command))

    def _feed(self, command: Command) -> None:
        descriptor = command.cell.input
        command.feed()
        if not command.has_input:
            self._unregister(descriptor)

    def _collect(self, command: Command) -> None:
        if not command.collect():
            self._unregister(command.cell.output)

    def _note(self, command: Command) -> None:
        if command.note() or (command.cell.reap() and command.note()):
            self._end_command(command)
        elif command.cell.reaped:
            # Without its keeper nobody knows what the command has left behind: all of it has to end.
            os.write(2, b"a keeper failed: %d\n" % (command.cell.failure or 0))
            os._exit(1)

    def _end_command(self, command: Command) -> None:
        cell = command.cell
        for descriptor in (cell.status, cell.output, cell.input):
            self._unregister(descriptor)
        del self._commands[command.nonce]
        if not self._settings["subreaper"]:
            self._end_strays()
        reply = command.finish()
        if command.last:
            self._leave(command.nonce, reply)
        self._reply(command.nonce, reply)
        cell.close_pipes()
        if cell.reusable and len(self._parked) < _MOST_PARKED:
            self._parked.append(cell)
        else:
            cell.close()
            self._reap()

    def _reap(self) -> None:
        """Collect keepers that have ended, and tell the cells of those that still had a command."""
        keepers = {command.cell.pid: command.cell for command in self._commands.values()}
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if pid in keepers:
                    keepers[pid].reaped = True
        except ChildProcessError:
            return

    def _end_strays(self) -> None:
        keepers = {command.cell.pid for command in self._commands.values()}
        if keepers:
            sweep.end_strays(self._settings, keepers)
        else:
            sweep.end_all(self._settings)

    def _leave(self, nonce: bytes, reply: dict[str, Any]) -> None:
        """Send the last reply and end the sandbox with the command's status, for the host to compare."""
        reply["n"] = nonce
        self._channel.send_all(b"".join(self._unsent) + frames.encode_frame(reply))
        if reply["exit_code"] is not None:
            os._exit(reply["exit_code"])
        os._exit(128 + (reply["signal"] or system.SIGKILL))

    def _cancel(self, nonce: bytes) -> None:
        command = self._commands.get(nonce)
        if command is not None:
            command.cell.kill()

    def _check_commands(self) -> None:
        now = time.monotonic()
        if now < self._next_check:
            overdue = [command for command in self._commands.values() if now >= command.deadline]
            for command in overdue:
                command.stop("wall")
            return
        usages = watch.usage_by_cell({command.cell.pid for command in self._commands.values()})
        for command in list(self._commands.values()):
            command.check(usages[command.cell.pid], now)
        # At the end of a look, so that looking never takes more than half of the time.
        self._next_check = max(time.monotonic() + (time.monotonic() - now), now + _TICK_MILLISECONDS / 1000)


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


def _refused() -> dict[str, Any]:
    """Return how a command ends that could not be started because others have taken all there is."""
    return {
        "k": "exec",
        "exit_code": None,
        "signal": None,
        "limit": "pids",
        "output": b"",
        "output_bytes": 0,
        "sha256": new_sha256().hexdigest(),
        "wall_us": 0,
        "cpu_us": 0,
        "peak_bytes": 0,
        "written_bytes": 0,
    }


def _await_parked(cell: Cell) -> None:
    """Wait until the first cell has shown that everything a command needs can be had here."""
    watcher = select.poll()
    watcher.register(cell.status, select.POLLIN)
    watcher.poll(_PARK_MILLISECONDS)
    for kind, value in cell.messages():
        if kind == FAILED:
            raise OSError(value, os.strerror(value), "cell")
    if not cell.ready:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "cell")

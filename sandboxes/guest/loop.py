"""The guest's loop: requests come in, file operations are done at once, commands run until they end.

What a command runs in, and what else a guest has to look after, is a subclass's.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]
import errno
import os
import select
import time

from sandboxes.guest import files, frames, system, watch
from sandboxes.guest.output import new_sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sandboxes.guest.cell import Cell
    from sandboxes.guest.channel import Channel
    from sandboxes.guest.command import Command

_FIRST_SIGNAL, _LAST_SIGNAL = 1, 64
_MOST_PARKED = 4
_PARK_MILLISECONDS = 10000


class Loop:
    """One poll loop over the channel and every running command."""

    tick_milliseconds = 20
    idle_milliseconds: int | None = None

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.parked: list[Cell] = []
        self.commands: dict[bytes, Command] = {}
        self._reader = frames.FrameReader()
        self._unsent: list[memoryview] = []
        self._poll = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}
        self._next_check = 0.0
        self._park_due = 0.0

    def file_operation(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a file operation asks for and return the reply."""
        raise NotImplementedError

    def used_bytes(self) -> int:
        """Return what the workspace's changes occupy."""
        raise NotImplementedError

    def begin(self, request: dict[str, Any]) -> Command | None:
        """Return a command in a cell; None when there can be no cell now."""
        raise NotImplementedError

    def began(self, command: Command) -> None:
        """Look after a command that has just been given to its cell."""

    def end(self, command: Command) -> None:
        """Do what there is to do between a command's end and its reply."""

    def give_up(self, cell: Cell) -> None:
        """Let go of a cell that no other command may use."""
        raise NotImplementedError

    def park(self) -> None:
        """Make a cell ahead of the command that will use it."""
        raise NotImplementedError

    def each_turn(self) -> None:
        """Look after what else there is, whenever something came or a moment has passed."""

    def serve(self) -> None:
        """Answer until the channel ends."""
        self.channel.set_blocking(False)
        self.register(self.channel.reading, select.POLLIN, self._receive)
        while True:
            timeout = self.tick_milliseconds if self.commands else self.idle_milliseconds
            for descriptor, _ in self._poll.poll(timeout):
                action = self._actions.get(descriptor)
                if action is not None:
                    action()
            self.each_turn()
            if self.commands:
                self._check_commands()
            # A short command is not slowed down by the making of the next cell.
            if not self.parked and (not self.commands or time.monotonic() >= self._park_due):
                self.park()

    def receive_blocking(self) -> dict[str, Any]:
        """Wait for the next request; the end of the channel is the end of the guest."""
        self.channel.set_blocking(True)
        while True:
            payload = self._read_some()
            if payload is not None:
                return frames.decode_payload(payload)

    def register(self, descriptor: int, events: int, action: Callable[[], None]) -> None:
        """Have an action taken when a descriptor is ready."""
        self._actions[descriptor] = action
        self._poll.register(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        """Look at a descriptor no more."""
        if self._actions.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def note(self, command: Command) -> None:
        """Take in what a command's cell says."""
        if command.note():
            self.end_command(command)

    def end_command(self, command: Command) -> None:
        """Answer for a command that is over, and keep its cell if another one may use it."""
        cell = command.cell
        for descriptor in (cell.status, cell.output, cell.input):
            self.unregister(descriptor)
        del self.commands[command.nonce]
        self.end(command)
        reply = command.finish()
        if command.last:
            self._leave(command.nonce, reply)
        self._reply(command.nonce, reply)
        if cell.reusable and len(self.parked) < _MOST_PARKED:
            self.parked.append(cell)
        else:
            self.give_up(cell)

    def _read_some(self) -> bytearray | None:
        count = self.channel.receive_into(self._reader.room())
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
            self._reply(request["n"], self.file_operation(operation, request))
        elif operation in ("exec", "exec_last"):
            self._start_command(request)
        elif operation == "cancel":
            self._cancel(request["of"])
        elif operation == "used":
            self._reply(request["n"], {"k": "used", "bytes": self.used_bytes()})
        elif operation == "ping":
            self._reply(request["n"], {"k": "pong"})
        else:
            raise frames.FrameError("unknown operation")

    def _reply(self, nonce: bytes, fields: dict[str, Any]) -> None:
        fields["n"] = nonce
        self._unsent += map(memoryview, frames.frame_pieces(fields))
        self._send()

    def _send(self) -> None:
        try:
            while self._unsent:
                rest = self._unsent[0][self.channel.send(self._unsent[0]) :]
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
        if self.channel.writing != self.channel.reading:
            if self.channel.writing not in self._actions:
                self.register(self.channel.writing, select.POLLOUT, self._send)
            return
        self._poll.modify(self.channel.reading, select.POLLIN | select.POLLOUT)
        self._actions[self.channel.reading] = self._send_and_receive

    def _wait_to_receive(self) -> None:
        if self.channel.writing != self.channel.reading:
            self.unregister(self.channel.writing)
        elif self._actions.get(self.channel.reading) == self._send_and_receive:
            self._actions[self.channel.reading] = self._receive
            self._poll.modify(self.channel.reading, select.POLLIN)

    def _send_and_receive(self) -> None:
        self._send()
        self._receive()

    def _start_command(self, request: dict[str, Any]) -> None:
        command = self.begin(request)
        if command is None:
            self._reply(request["n"], _refused())
            return
        cell = command.cell
        self._park_due = time.monotonic() + self.tick_milliseconds / 1000
        if not self.commands:
            self._next_check = self._park_due
        self.commands[command.nonce] = command
        command.start()
        self.began(command)
        self.register(cell.status, select.POLLIN, lambda: self.note(command))
        self.register(cell.output, select.POLLIN, lambda: self._collect(command))
        if command.has_input:
            self.register(cell.input, select.POLLOUT, lambda: self._feed(command))

    def _feed(self, command: Command) -> None:
        descriptor = command.cell.input
        command.feed()
        if not command.has_input:
            self.unregister(descriptor)

    def _collect(self, command: Command) -> None:
        if not command.collect():
            self.unregister(command.cell.output)

    def _leave(self, nonce: bytes, reply: dict[str, Any]) -> None:
        """Send the last reply and end the sandbox with the command's status, for the host to compare."""
        reply["n"] = nonce
        self.channel.send_all(b"".join(self._unsent) + frames.encode_frame(reply))
        if reply["exit_code"] is not None:
            os._exit(reply["exit_code"])
        os._exit(128 + (reply["signal"] or system.SIGKILL))

    def _cancel(self, nonce: bytes) -> None:
        command = self.commands.get(nonce)
        if command is not None:
            command.cell.kill()

    def _check_commands(self) -> None:
        now = time.monotonic()
        if now < self._next_check:
            for command in self.commands.values():
                if now >= command.deadline:
                    command.stop("wall")
        else:
            self._look_at_usage(now)
        # Whoever stops a command may be the one who learns that it has ended by itself.
        for command in [command for command in self.commands.values() if command.has_ended]:
            self.end_command(command)

    def _look_at_usage(self, now: float) -> None:
        usages = watch.usage_by_cell({command.cell.pid for command in self.commands.values()})
        for command in self.commands.values():
            command.check(usages[command.cell.pid], now)
        # At the end of a look, so that looking never takes more than half of the time.
        self._next_check = max(
            time.monotonic() + (time.monotonic() - now), now + self.tick_milliseconds / 1000
        )


def harden() -> None:
    """React to no signal and show nothing to curious neighbours."""
    system.set_dumpable(False)
    for number in range(_FIRST_SIGNAL, _LAST_SIGNAL + 1):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    os.chdir("/")


def await_ready(cell: Cell) -> None:
    """Wait until the first cell has shown that everything a command needs can be had here.

    Raises:
        OSError: It cannot.
    """
    watcher = select.poll()
    watcher.register(cell.status, select.POLLIN)
    watcher.poll(_PARK_MILLISECONDS)
    cell.messages()
    if not cell.ready:
        number = cell.failure or errno.EIO
        raise OSError(number, os.strerror(number), "cell")


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

"""The guest's life: harden, mount, park a cell, then answer requests until the channel closes."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]
import _socket
import errno
import gc
import os
import select
import sys
import time

from sandboxes.guest import files, frames, init, prepare, system, watch
from sandboxes.guest.cell import Cell
from sandboxes.guest.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CHANNEL_PLACE = 900
_TICK_MILLISECONDS = 20
_PARK_MILLISECONDS = 10000
_MOST_PARKED = 4
_FIRST_SIGNAL, _LAST_SIGNAL = 1, 64


def main() -> None:
    """Run as PID 1 of the sandbox until the host lets go of the channel."""
    frames.decode_to_views()
    channel = _harden(int(sys.argv[1]))
    guest = Guest(channel)
    guest.start()
    guest.serve()


def _harden(descriptor: int) -> _socket.socket:
    """Move the channel out of the way of stray prints; react to no signal and no curious neighbour."""
    system.set_dumpable(False)
    for number in range(_FIRST_SIGNAL, _LAST_SIGNAL + 1):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    os.dup2(descriptor, _CHANNEL_PLACE, inheritable=False)
    os.closerange(3, _CHANNEL_PLACE)
    os.chdir("/")
    return _socket.socket(fileno=_CHANNEL_PLACE)


class Guest:
    """One poll loop over the channel and every running command."""

    def __init__(self, channel: _socket.socket) -> None:
        self._channel = channel
        self._reader = frames.FrameReader()
        self._unsent: list[memoryview] = []
        self._poll = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}
        self._commands: dict[bytes, Command] = {}
        self._running: dict[int, Command] = {}
        self._parked: list[Cell] = []
        self._next_check = 0.0
        self._park_due = 0.0

    def start(self) -> None:
        """Take the settings, build the workspace, park the first cell and say so."""
        hello = self._receive_blocking()
        self._settings: dict[str, Any] = hello["settings"]
        self.workspace = prepare.prepare(self._settings)
        system.keep_capabilities((system.CAP_SYS_PTRACE,))
        # What is there by now stays, and is shared with every init as long as no collection looks at it.
        gc.freeze()
        parked = self._park()
        _await_ready(parked)
        ready = {
            "n": hello["n"],
            "k": "ready",
            "strategy": self.workspace.strategy,
            "init": parked.pid,
            "shell": system.shell(),
        }
        ancillary = [(_socket.SOL_SOCKET, init.SCM_RIGHTS, self.workspace.upper.to_bytes(4, sys.byteorder))]
        self._channel.sendmsg([frames.encode_frame(ready)], ancillary)
        self._channel.setblocking(False)
        self._register(_CHANNEL_PLACE, select.POLLIN, self._receive)

    def serve(self) -> None:
        """Answer until the channel ends."""
        while True:
            timeout = _TICK_MILLISECONDS if self._commands else None
            for descriptor, _ in self._poll.poll(timeout):
                action = self._actions.get(descriptor)
                if action is not None:
                    action()
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
        self._channel.setblocking(True)
        while True:
            payload = self._read_some()
            if payload is not None:
                return frames.decode_payload(payload)

    def _read_some(self) -> bytearray | None:
        count = self._channel.recv_into(self._reader.room())
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
            self._reply(request["n"], files.perform(self.workspace, operation, request))
        elif operation in ("exec", "exec_last"):
            self._start_command(request)
        elif operation == "cancel":
            self._cancel(request["of"])
        elif operation == "used":
            self._reply(request["n"], {"k": "used", "bytes": watch.used_bytes(prepare.STORE)})
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
                rest = self._unsent[0][self._channel.send(self._unsent[0]) :]
                if rest:
                    self._unsent[0] = rest
                else:
                    del self._unsent[0]
        except BlockingIOError:
            self._poll.modify(_CHANNEL_PLACE, select.POLLIN | select.POLLOUT)
            self._actions[_CHANNEL_PLACE] = self._send_and_receive
            return
        except ConnectionError:
            os._exit(0)
        self._actions[_CHANNEL_PLACE] = self._receive
        self._poll.modify(_CHANNEL_PLACE, select.POLLIN)

    def _send_and_receive(self) -> None:
        self._send()
        self._receive()

    def _park(self) -> Cell:
        cell = self._new_cell()
        self._parked.append(cell)
        return cell

    def _new_cell(self) -> Cell:
        cell = Cell(self._settings)
        self._register(cell.pidfd, select.POLLIN, lambda: self._notice_end(cell))
        return cell

    def _start_command(self, request: dict[str, Any]) -> None:
        cell = self._parked.pop() if self._parked else self._new_cell()
        command = Command(cell, request, self._settings, self.workspace.mount)
        self._park_due = time.monotonic() + _TICK_MILLISECONDS / 1000
        if not self._commands:
            self._next_check = self._park_due
        self._commands[command.nonce] = self._running[cell.pid] = command
        command.start()
        if len(self._commands) > 1:
            for each in self._commands.values():
                each.cell.spoil()
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
        if command.note():
            self._end_command(command)

    def _notice_end(self, cell: Cell) -> None:
        """React to the end of a cell: the last sign of a command that was killed."""
        if not cell.reap():
            return
        command = self._running.get(cell.pid)
        if command is not None:
            self._end_command(command)
        if cell in self._parked:
            self._parked.remove(cell)
        self._unregister(cell.pidfd)
        cell.close()

    def _end_command(self, command: Command) -> None:
        cell = command.cell
        for descriptor in (cell.status, cell.output, cell.input):
            self._unregister(descriptor)
        del self._commands[command.nonce], self._running[cell.pid]
        reply = command.finish()
        if command.last:
            self._leave(command.nonce, reply)
        self._reply(command.nonce, reply)
        if cell.reusable and len(self._parked) < _MOST_PARKED:
            self._parked.append(cell)
        elif not cell.reaped:
            cell.kill()

    def _leave(self, nonce: bytes, reply: dict[str, Any]) -> None:
        """Send the last reply and end the sandbox with the command's status, for the host to compare."""
        reply["n"] = nonce
        self._channel.setblocking(True)
        self._channel.sendall(b"".join(self._unsent) + frames.encode_frame(reply))
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


def _await_ready(cell: Cell) -> None:
    """Wait until the first cell has shown that everything a command needs can be had here."""
    watcher = select.poll()
    watcher.register(cell.status, select.POLLIN)
    watcher.poll(_PARK_MILLISECONDS)
    cell.messages()
    if not cell.ready:
        raise OSError(cell.failure or errno.EIO, os.strerror(cell.failure or errno.EIO), "cell")

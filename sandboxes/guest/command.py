"""One running command: its input, output, limits and end."""

from __future__ import annotations

import os
import time

from sandboxes.guest import report, system, watch
from sandboxes.guest.output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandboxes.guest.cell import Cell

_SIGKILL, _SIGXCPU, _SIGXFSZ = 9, 24, 25
_PIPE_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024
_NOT_STARTED = 125 << 8


class Command:
    """What the guest knows of a command from its start to its reply.

    ``mount`` is where the workspace is, ``store`` the file system that holds its changes.
    """

    def __init__(
        self, cell: Cell, request: dict[str, Any], settings: dict[str, Any], mount: str, store: str
    ) -> None:
        self.cell = cell
        self.nonce: bytes = request["n"]
        self.last: bool = request["o"] == "exec_last"
        self.limit: str | None = None
        self.deadline = time.monotonic() + request["timeout_us"] / 1e6
        self._settings = settings
        self._request = request
        self._mount = mount
        self._store = store
        self._output = Output(request["max_output_bytes"])
        self._input = memoryview(request["stdin"])
        self._started = time.monotonic()
        self._status: int | None = None
        self._failure: tuple[int, int] | None = None
        self._peak_bytes = 0
        self._places = (store, "/tmp", "/dev/shm")
        self._free_before = [watch.free_blocks_and_inodes(place) for place in self._places]
        self._was_full: str | None = None
        self._used_before = watch.used_bytes(store)

    def start(self) -> None:
        """Let the cell become the command."""
        directory = self._request["directory"]
        words = {
            "argv": self._request["argv"],
            "environment": self._request["environment"],
            "directory": self._mount if directory == "." else self._mount + "/" + directory,
        }
        try:
            self.cell.start(words, has_input=bool(self._input))
        except (BrokenPipeError, ConnectionResetError):
            # The end of a cell that has just been killed shows by itself.
            pass

    @property
    def has_input(self) -> bool:
        """Whether the command has input that was not written yet."""
        return self.cell.input >= 0

    @property
    def has_ended(self) -> bool:
        """Whether the command and all that it started are known to have ended."""
        return self._status is not None

    def feed(self) -> None:
        """Write as much input as the command takes now."""
        try:
            self._input = self._input[os.write(self.cell.input, self._input) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            self.cell.close_input()

    def collect(self) -> bool:
        """Take what came out; False when there can be no more."""
        try:
            data = os.read(self.cell.output, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        if len(data) == _PIPE_BYTES:
            # It was full: whoever writes that much is held up by every look at it.
            system.widen_pipe(self.cell.output, _READ_BYTES)
        self._output.add(data)
        if self._output.total > self._settings["output_limit_bytes"]:
            self.stop("output")
        return True

    def note(self) -> bool:
        """Take in what the cell reported; True once the command has ended and left nothing behind."""
        for kind, value in self.cell.messages():
            if kind in (report.EXITED, report.EXITED_LAST):
                self._status = value
            elif kind == report.REFUSED:
                self._status, self.limit = _NOT_STARTED, "pids"
            elif kind in (report.NO_DIRECTORY, report.NO_EXEC, report.FAILED):
                self._failure = (kind, value)
        return self.has_ended

    def stop(self, limit: str) -> None:
        """End the command for a limit, unless it has already ended by itself."""
        if self.note():
            return
        if self.limit is None:
            self.limit = limit
        self.cell.kill()

    def check(self, usage: watch.Usage, now: float) -> None:
        """Hold the limits that nothing else enforces."""
        settings = self._settings
        if now >= self.deadline:
            self.stop("wall")
        if usage.threads >= settings["pids"]:
            self.stop("pids")
        if usage.cpu_seconds - self.cell.spent_microseconds / 1e6 >= settings["cpu_seconds"]:
            self.stop("cpu")
        used = self.held_bytes(usage)
        if used > settings["memory_bytes"]:
            self.stop("memory")
        self._peak_bytes = max(self._peak_bytes, used)
        self._was_full = self._full_place(only_new=True) or self._was_full

    def held_bytes(self, usage: watch.Usage) -> int:
        """Return the memory that the command holds now."""
        return watch.held_bytes(usage, self._settings["memory_bytes"])

    def ran_out_of_memory(self) -> bool:
        """Whether something of it was killed for the memory that it held."""
        return False

    def finish(self) -> dict[str, Any]:
        """Return the reply, once the command has ended or its cell is gone."""
        self.note()
        self._drain()
        self.cell.close_pipes()
        exit_code, signal = self._ending()
        limit = self._limit_reached(exit_code, signal)
        return {
            "k": "exec",
            "exit_code": None if limit else exit_code,
            "signal": None if limit else signal,
            "limit": limit,
            "output": self._output.kept(),
            "output_bytes": self._output.total,
            "sha256": self._output.sha256(),
            "wall_us": int((time.monotonic() - self._started) * 1e6),
            "cpu_us": self.cell.cpu_microseconds,
            "peak_bytes": max(self._peak_bytes, self.cell.peak_bytes),
            "written_bytes": max(0, watch.used_bytes(self._store) - self._used_before),
        }

    def _drain(self) -> None:
        # Every writer is dead, but one may have passed its end on to another command: never wait here.
        most = self._output.total + (1 << 20)
        before = -1
        while before < self._output.total < most:
            before = self._output.total
            self.collect()

    def _ending(self) -> tuple[int | None, int | None]:
        if self._failure is not None:
            return self._explain_failure(*self._failure), None
        if self._status is None:
            return None, _SIGKILL
        if os.WIFSIGNALED(self._status):
            return None, os.WTERMSIG(self._status)
        return os.WEXITSTATUS(self._status), None

    def _explain_failure(self, kind: int, number: int) -> int:
        what = self._request["argv"][0] if kind == report.NO_EXEC else self._request["directory"]
        self._output.add(("%s: %s\n" % (what, os.strerror(number))).encode("utf-8", "surrogateescape"))
        return 127 if kind == report.NO_EXEC and number in (2, 20) else 126

    def _limit_reached(self, exit_code: int | None, signal: int | None) -> str | None:
        if self.limit is not None:
            return self.limit
        if signal == _SIGXCPU or exit_code == 128 + _SIGXCPU:
            return "cpu"
        if signal == _SIGXFSZ or exit_code == 128 + _SIGXFSZ:
            return "size"
        failed = exit_code != 0
        if failed and self.ran_out_of_memory():
            return "memory"
        if failed and self.cell.left_behind + 1 >= self._settings["pids"]:
            # It ended before anybody looked, but what it left behind filled the limit.
            return "pids"
        return self._full_place(only_new=not failed) or (self._was_full if failed else None)

    def _full_place(self, only_new: bool) -> str | None:
        for place, (blocks_before, inodes_before) in zip(self._places, self._free_before):  # noqa: B905 (3.10)
            blocks, inodes = watch.free_blocks_and_inodes(place)
            if blocks == 0 and (blocks_before > 0 or not only_new):
                return "disk"
            if inodes == 0 and (inodes_before > 0 or not only_new):
                return "inodes"
        return None

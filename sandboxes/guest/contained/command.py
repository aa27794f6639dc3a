"""One running command: its input, output, limits and end."""

from __future__ import annotations

import os
import time

from sandboxes.guest import watch
from sandboxes.guest.contained import memory
from sandboxes.guest.contained.owner import AsOwner
from sandboxes.guest.contained.report import (
    EXITED,
    EXITED_LAST,
    FAILED,
    NO_DIRECTORY,
    NO_EXEC,
    REFUSED,
)
from sandboxes.guest.output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandboxes.guest.contained.cell import Cell

_SIGKILL, _SIGXCPU, _SIGXFSZ = 9, 24, 25
_READ_BYTES = 256 * 1024
_NOT_STARTED = 125 << 8


class Command:
    """What the guest knows of a command from its start to its reply."""

    def __init__(self, cell: Cell, request: dict[str, Any], settings: dict[str, Any]) -> None:
        self.cell = cell
        self.nonce: bytes = request["n"]
        self.last: bool = request["o"] == "exec_last"
        self.limit: str | None = None
        self.deadline = time.monotonic() + request["timeout_us"] / 1e6
        self._settings = settings
        self._request = request
        self._output = Output(request["max_output_bytes"])
        self._input = memoryview(request["stdin"])
        self._started = time.monotonic()
        self._status: int | None = None
        self._failure: tuple[int, int] | None = None
        self._peak_bytes = 0
        self._places = (settings["mount"], "/tmp", "/dev/shm")
        self._free_before = [_free_blocks_and_inodes(place) for place in self._places]
        self._was_full: str | None = None
        self._used_before = watch.used_bytes(settings["mount"])
        self._kills_before = memory.kills()

    def start(self) -> None:
        """Let the keeper's child become the command."""
        directory, mount = self._request["directory"], self._settings["mount"]
        words = {
            "argv": self._request["argv"],
            "environment": self._request["environment"],
            "directory": mount if directory == "." else mount + "/" + directory,
        }
        try:
            self.cell.start(words, bool(self._input))
        except BrokenPipeError:
            # Its keeper's end shows on the status pipe.
            return

    @property
    def has_input(self) -> bool:
        """Whether the command has input that was not written yet."""
        return self.cell.input >= 0

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
        self._output.add(data)
        if self._output.total > self._settings["output_limit_bytes"]:
            self.stop("output")
        return True

    def note(self) -> bool:
        """Take in what keeper and child reported; True once the command and all it started have ended."""
        for kind, value in self.cell.messages():
            if kind in (EXITED, EXITED_LAST):
                self._status = value
            elif kind == REFUSED:
                self._status, self.limit = _NOT_STARTED, "pids"
            elif kind in (NO_DIRECTORY, NO_EXEC, FAILED):
                self._failure = (kind, value)
        return self._status is not None

    def stop(self, limit: str) -> None:
        """End the command for a limit, unless it has already ended by itself."""
        self.note()
        if self._status is not None:
            return
        if self.limit is None:
            self.limit = limit
        self.cell.kill()

    def check(self, usage: watch.Usage, now: float) -> None:
        """Hold the limits that nothing else enforces, and say which one the kernel is about to."""
        settings = self._settings
        if self.cell.spoiled:
            # A signal that came just before the keeper began to wait is seen only with the next one.
            self.cell.kill()
        if now >= self.deadline:
            self.stop("wall")
        if usage.threads >= settings["pids"]:
            self.stop("pids")
        if usage.cpu_seconds - self.cell.spent_microseconds / 1e6 >= settings["cpu_seconds"]:
            self.stop("cpu")
        # Only the owner may ask how many of a page's users there are.
        with AsOwner(settings["uid"]):
            used = watch.held_bytes(usage, settings["memory_bytes"])
        if used > settings["memory_bytes"]:
            self.stop("memory")
        self._peak_bytes = max(self._peak_bytes, used)
        self._was_full = self._full_place(only_new=True) or self._was_full

    def finish(self) -> dict[str, Any]:
        """Return the reply, once the command has ended."""
        self._drain()
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
            "written_bytes": max(0, watch.used_bytes(self._settings["mount"]) - self._used_before),
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
        what = self._request["argv"][0] if kind == NO_EXEC else self._request["directory"]
        self._output.add(("%s: %s\n" % (what, os.strerror(number))).encode("utf-8", "surrogateescape"))
        return 127 if kind == NO_EXEC and number in (2, 20) else 126

    def _limit_reached(self, exit_code: int | None, signal: int | None) -> str | None:
        if self.limit is not None:
            return self.limit
        if signal == _SIGXCPU or exit_code == 128 + _SIGXCPU:
            return "cpu"
        if signal == _SIGXFSZ or exit_code == 128 + _SIGXFSZ:
            return "size"
        if exit_code != 0 and memory.kills() > self._kills_before:
            return "memory"
        failed = exit_code != 0
        if failed and self.cell.left_behind + 1 >= self._settings["pids"]:
            # It ended before anybody looked, but what it left behind filled the limit.
            return "pids"
        return self._full_place(only_new=not failed) or (self._was_full if failed else None)

    def _full_place(self, only_new: bool) -> str | None:
        for place, (blocks_before, inodes_before) in zip(self._places, self._free_before):  # noqa: B905 (3.10)
            blocks, inodes = _free_blocks_and_inodes(place)
            if blocks == 0 and (blocks_before > 0 or not only_new):
                return "disk"
            if inodes == 0 and (inodes_before > 0 or not only_new):
                return "inodes"
        return None


def _free_blocks_and_inodes(place: str) -> tuple[int, int]:
    """Return how much is free; a file system that does not count its files is never full of them."""
    status = os.statvfs(place)
    return status.f_bfree, status.f_ffree if status.f_files else 1

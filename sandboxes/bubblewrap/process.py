"""The processes of one sandbox as the host holds them: by descriptor, never by number."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import anyio

from sandboxes.bubblewrap.spawn import Spawned, spawner

_KILL_SECONDS = 2.0
_ERRORS_KEPT_BYTES = 16 * 1024
_HINT_CHARACTERS = 300


class SandboxProcess:
    """bubblewrap and, below it, the guest, whose end is the end of everything inside."""

    def __init__(self, spawned: Spawned) -> None:
        self._process: subprocess.Popen[bytes] = spawned.process
        self._pidfd = spawned.pidfd
        self._errors = spawned.errors
        self._guest_pidfd: int | None = None
        self._said = b""
        self.guest_pid: int | None = None

    def identify_guest(self, pid: int) -> bool:
        """Take hold of the guest by its host pid; False when that is no child of bubblewrap."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        if _parent(pid) != self._process.pid:
            os.close(pidfd)
            return False
        self._guest_pidfd = pidfd
        self.guest_pid = pid
        return True

    def kill(self) -> None:
        """Kill the guest, and with it everything inside; bubblewrap follows by itself."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._guest_pidfd is not None:
                signal.pidfd_send_signal(self._guest_pidfd, signal.SIGKILL)
            else:
                self._kill_group()

    def _kill_group(self) -> None:
        """Kill bubblewrap and a child that it may just have forked, which does not die with it yet.

        The number is safe: it belongs to bubblewrap until this object has waited for it.
        """
        os.killpg(self._process.pid, signal.SIGKILL)

    def give_up(self) -> str | None:
        """Kill everything because it cannot be used any more, and return the end of what was printed."""
        said = self.said()
        self.kill()
        return f"the sandbox printed: {said[-_HINT_CHARACTERS:]}" if said else None

    async def wait(self, *, timeout_seconds: float) -> int | None:
        """Return bubblewrap's exit status as this process observed it; None when it lives on."""
        with anyio.move_on_after(timeout_seconds):
            while self._process.poll() is None:
                await anyio.wait_readable(self._pidfd)
        return self._process.poll()

    async def end(self) -> None:
        """Kill everything and return when nothing inside lives; bubblewrap's own end is waited for elsewhere.

        The guest is PID 1 of its namespace: the kernel reports its end only after that of all others in it.
        """
        if self._process.returncode is None:
            self.kill()
            if not await self._guest_is_gone():
                with contextlib.suppress(ProcessLookupError):
                    self._kill_group()
                await self.wait(timeout_seconds=_KILL_SECONDS)
        self._close()
        if self._process.returncode is None:
            spawner().collect(self._process)

    def said(self) -> str:
        """Return what bubblewrap and the guest have printed, bounded and untrusted."""
        if self._errors >= 0:
            with contextlib.suppress(BlockingIOError):
                while len(self._said) < _ERRORS_KEPT_BYTES:
                    data = os.read(self._errors, _ERRORS_KEPT_BYTES)
                    if not data:
                        break
                    self._said += data
        return self._said[:_ERRORS_KEPT_BYTES].decode("utf-8", "replace").strip()

    async def _guest_is_gone(self) -> bool:
        if self._guest_pidfd is None:
            return await self.wait(timeout_seconds=_KILL_SECONDS) is not None
        with anyio.move_on_after(_KILL_SECONDS):
            await anyio.wait_readable(self._guest_pidfd)
            return True
        return False

    def _close(self) -> None:
        self.said()
        for descriptor in (self._errors, self._pidfd, self._guest_pidfd):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._errors = self._pidfd = -1
        self._guest_pidfd = None


def _parent(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(text[text.rindex(b")") + 2 :].split()[1])

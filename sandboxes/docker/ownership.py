"""Whose a container, volume or directory is: the process that made it, and no other of the same number."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

SANDBOX_LABEL: Final = "remit.sandbox"
DEADLINE_LABEL: Final = "remit.deadline"
_OWNER_LABEL: Final = "remit.owner"

_MACHINE: Final = Path("/etc/machine-id")
_FIELDS: Final = 5
_START_FIELD: Final = 19


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process. Pids are used again: its start belongs to it; boot and namespace give both a meaning."""

    pid: int
    started: int
    boot: str
    namespace: str
    host: str

    @classmethod
    def this_process(cls) -> Self:
        """Describe this process."""
        pid = os.getpid()
        return cls(
            pid=pid,
            started=started(pid) or 0,
            boot=_boot(),
            namespace=os.readlink("/proc/self/ns/pid"),
            host=_host(),
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what ``str`` wrote; None when it is something else."""
        words = text.split(" ")
        if len(words) != _FIELDS or not (words[0].isdigit() and words[1].isdigit()):
            return None
        return cls(pid=int(words[0]), started=int(words[1]), boot=words[2], namespace=words[3], host=words[4])

    def __str__(self) -> str:
        return f"{self.pid} {self.started} {self.boot} {self.namespace} {self.host}"

    def is_gone(self) -> bool:
        """Whether the process is known to be dead; one of another host or namespace is not known to be."""
        return self._lives() is False

    def may_be_gone(self) -> bool:
        """Whether the process is not known to be alive."""
        return self._lives() is not True

    def _lives(self) -> bool | None:
        """Say whether it lives, as far as that can be seen from here."""
        if self.host != _host():
            return None
        if self.boot != _boot():
            return False
        if self.namespace != os.readlink("/proc/self/ns/pid"):
            return None
        since = started(self.pid)
        # Where /proc hides the processes of others, not to find one means nothing.
        return _exists(self.pid) if since is None else since == self.started


def labels(sandbox: str, *, lifetime_seconds: int) -> Mapping[str, str]:
    """Return what is written onto everything that a sandbox of this process has at the engine."""
    return {
        SANDBOX_LABEL: sandbox,
        _OWNER_LABEL: str(Owner.this_process()),
        DEADLINE_LABEL: str(int(time.time()) + lifetime_seconds),
    }


def is_abandoned(found: Mapping[str, str]) -> bool:
    """Whether what carries these labels has nobody left who would remove it."""
    if SANDBOX_LABEL not in found:
        return False
    owner = Owner.parse(found.get(_OWNER_LABEL, ""))
    deadline = found.get(DEADLINE_LABEL, "")
    if owner is None or owner.may_be_gone():
        # A clock that jumped is no reason to take a living process's sandbox away.
        overdue = deadline.isdigit() and int(deadline) < time.time()
        return overdue or (owner is not None and owner.is_gone())
    return False


def started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(text[text.rindex(b")") + 2 :].split()[_START_FIELD])


def _exists(pid: int) -> bool | None:
    """Say False when there is no process of that number; one that cannot be looked at may be any."""
    try:
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return None


def _host() -> str:
    """Name this host: its name alone is often that of another one too."""
    try:
        machine = _MACHINE.read_text(encoding="ascii").strip()[:12]
    except OSError:
        machine = "-"
    return f"{platform.node()}/{machine}"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

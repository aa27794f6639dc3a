"""The bare operations that nothing can be faster than: what each figure is printed beside."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anyio

from sandboxes.bubblewrap.binary import find_binary

UNPRIVILEGED = 65534


SHELL_COMMAND = ["/bin/bash", "-c", "true"]


async def fork_exec() -> None:
    """Start /bin/true and wait for it."""
    # Blocking on purpose: the bare operation, without what an event loop adds.
    subprocess.run(["/bin/true"], check=True, stdin=subprocess.DEVNULL)  # noqa: ASYNC221


async def fork_exec_shell() -> None:
    """Start the shell that `terminal` starts, and wait for it."""
    subprocess.run(SHELL_COMMAND, check=True, stdin=subprocess.DEVNULL)  # noqa: ASYNC221


async def fork_exec_rate(*, tasks: int, count: int) -> float:
    """Start that shell ``count`` times from ``tasks`` tasks of one event loop, and return how many a second.

    What a broker without sandbox, decision and journal would do for the same calls.
    """

    async def some() -> None:
        for _ in range(count // tasks):
            await anyio.run_process(SHELL_COMMAND, stdin=subprocess.DEVNULL)

    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(some)
    return count / (time.perf_counter() - started)


class Files:
    """Bare file operations in a directory of their own."""

    def __init__(self, directory: Path, *, size_bytes: int) -> None:
        self._path = directory / f"floor-{size_bytes}"
        self._data = (b"b" * 1023 + b"\n") * (size_bytes // 1024)
        self._path.write_bytes(self._data)

    async def write(self) -> None:
        """Write a temporary file and rename it into place."""
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(self._data)
        temporary.rename(self._path)

    async def read(self) -> None:
        """Read the whole file as text, as whoever shows it to a model must."""
        self._path.read_text(encoding="utf-8")


class Appender:
    """A bare append of one line with one write(2)."""

    def __init__(self, path: Path, *, line_bytes: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._line = b"x" * (line_bytes - 1) + b"\n"

    async def append(self) -> None:
        os.write(self._fd, self._line)

    async def append_and_sync(self) -> None:
        os.write(self._fd, self._line)
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def stage_bwrap(directory: Path) -> Path:
    """Copy the bwrap that remit uses to where an ordinary user can start it."""
    binary = find_binary()
    place = directory / "bwrap" / "_bin" / "bwrap"
    place.parent.mkdir(parents=True)
    shutil.copy(binary.path, place)
    if binary.libraries is not None:
        shutil.copytree(binary.libraries, directory / binary.libraries.name)
    return place


class BareBwrap:
    """One bare bwrap call around /bin/true, as an ordinary user."""

    def __init__(self, program: Path) -> None:
        binds = [argument for name in ("/usr", "/bin", "/lib", "/lib64") for argument in _bind(name)]
        self._argv = [
            str(program),
            "--unshare-all",
            "--die-with-parent",
            *binds,
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "/bin/true",
        ]
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None

    async def call(self) -> None:
        subprocess.run(  # noqa: ASYNC221
            self._argv,
            check=True,
            stdin=subprocess.DEVNULL,
            env={},
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user is not None else None,
            cwd="/",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Flood:
    """How long it took to read and hash all that a command printed, and what the digest is."""

    seconds: float
    sha256: str


def flood(command: list[str]) -> Flood:
    """Run a command and hash its output."""
    started = time.perf_counter()
    digest = hashlib.sha256()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        if process.stdout is None:
            raise RuntimeError(f"{command}: no pipe")
        while chunk := process.stdout.read(1 << 18):
            digest.update(chunk)
    return Flood(seconds=time.perf_counter() - started, sha256=digest.hexdigest())


class Victim:
    """A sleeping process, to time a bare kill and wait."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL)

    def kill(self) -> float:
        """Kill it, wait for its end, and return the seconds."""
        started = time.perf_counter()
        self._process.kill()
        self._process.wait()
        return time.perf_counter() - started


class PeakMemory:
    """Watch how much resident memory this process gains while a block runs."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = _resident_bytes()
        self._peak = self._before

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def gained_bytes(self) -> int:
        return self._peak - self._before

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, _resident_bytes())


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _bind(name: str) -> list[str]:
    path = Path(name)
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), name]
    return ["--ro-bind", name, name] if path.exists() else []

"""An engine of the tests' own: private socket, private directories, no network; started once, stopped once.

Only one test process has it at a time: whoever wants it takes the lock, so under pytest-xdist the files that
use it wait for each other. The image is built once for each version of its script and kept as an archive.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGE = "remit-base"
REQUIRED = frozenset(filter(None, os.environ.get("REMIT_REQUIRE", "").split(",")))
_PACKAGES = {"dockerd": "docker.io", "docker": "docker.io", "mmdebstrap": "mmdebstrap", "runsc": "runsc"}
_START_SECONDS = 60
_held: list[object] = []


class NoEngine(Exception):
    """There is no engine to be had here, and why."""


class PrivateEngine:
    """A dockerd in a directory of its own."""

    def __init__(self, *, live_restore: bool = False) -> None:
        self.folder = Path(
            tempfile.mkdtemp(prefix="remit-engine-", dir="/run" if os.geteuid() == 0 else None)
        )
        self.address = f"unix://{self.folder}/engine.sock"
        self.process: subprocess.Popen[bytes] | None = None
        runsc = shutil.which("runsc")
        settings = {
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "live-restore": live_restore,
            "runtimes": {"runsc": {"path": runsc, "runtimeArgs": ["--network=none"]}} if runsc else {},
        }
        (self.folder / "engine.json").write_text(json.dumps(settings))

    def start(self) -> None:
        """Start it, again if need be: one that was killed can fail to find its containerd at first."""
        deadline = time.monotonic() + _START_SECONDS
        self._launch()
        while self.ask("version", check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise NoEngine((self.folder / "engine.log").read_text()[-1000:])
            if self.process.poll() is not None:
                self._launch()
            time.sleep(0.05)

    def _launch(self) -> None:
        words = {
            "host": self.address,
            "config-file": f"{self.folder}/engine.json",
            "data-root": f"{self.folder}/data",
            "exec-root": f"{self.folder}/exec",
            "pidfile": f"{self.folder}/engine.pid",
        }
        with (self.folder / "engine.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["dockerd", *(f"--{name}={value}" for name, value in words.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ask(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DOCKER_HOST": self.address}
        return subprocess.run(
            ["docker", *words], env=environment, check=check, capture_output=True, text=True, timeout=60
        )

    def load_image(self) -> None:
        change = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.ask("import", "--change", change, str(archive()), IMAGE)

    def containers(self) -> list[str]:
        return self.ask("ps", "-aq").stdout.split()

    def volumes(self) -> list[str]:
        return self.ask("volume", "ls", "-q").stdout.split()

    def kill(self) -> None:
        """Kill the engine itself and nothing else, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it and everything that it started."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.SubprocessError):
                containers = self.containers()
                if containers:
                    self.ask("rm", "-f", *containers)
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._end_the_rest()
        for place in self._mounts():
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_the_rest(self) -> None:
        """Kill what a killed engine has left: its containerd and shims, known by their words."""
        mark = str(self.folder).encode()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _has(pid, mark)]
            if not found:
                return
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _mounts(self) -> list[str]:
        rows = Path("/proc/self/mountinfo").read_text().splitlines()
        return sorted((row.split()[4] for row in rows if str(self.folder) in row.split()[4]), reverse=True)


def archive() -> Path:
    """Return the image as an archive, made now if this version of the script has not made it yet."""
    script = ROOT / "images" / "build"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "remit"
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"image-{hashlib.sha256(script.read_bytes()).hexdigest()[:16]}.tar"
    if not made.exists():
        subprocess.run([str(script), "--archive", str(made)], check=True, capture_output=True, timeout=300)
    return made


def install() -> None:
    """Install what is missing, where that can be done.

    Raises:
        NoEngine: It cannot.
    """
    if os.geteuid() != 0:
        raise NoEngine("only root can start an engine for the tests")
    missing = {package for program, package in _PACKAGES.items() if shutil.which(program) is None}
    if missing and shutil.which("apt-get") is None:
        raise NoEngine(f"{', '.join(sorted(missing))} cannot be installed here")
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (
            ["update", "-qq"],
            ["install", "-y", "-qq", "--no-install-recommends", *sorted(missing)],
        ):
            done = subprocess.run(
                ["apt-get", *words], env=environment, check=False, capture_output=True, text=True, timeout=600
            )
        if done.returncode != 0:
            raise NoEngine(done.stderr[-500:])


@contextlib.contextmanager
def private_engine(*, live_restore: bool = False):
    """Give an engine with the image in it, to one test process at a time."""
    with _turn():
        install()
        engine = PrivateEngine(live_restore=live_restore)
        try:
            engine.start()
            engine.load_image()
            yield engine
        finally:
            engine.stop()


@contextlib.contextmanager
def _turn():
    """Wait until no other test process has an engine; one process may have several."""
    if _held:
        yield
        return
    with (Path(tempfile.gettempdir()) / f"remit-engine-{os.geteuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _held.append(lock)
        try:
            yield
        finally:
            _held.remove(lock)


def _has(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

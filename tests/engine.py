"""An engine of the tests' own: private socket, private directories, no network; started once, stopped once.

Only one test process has it at a time: whoever wants it takes the lock, so under pytest-xdist the files that
use it wait for each other. The image is built once for each version of its script and kept as an archive.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT = Path(__file__).parents[1]
IMAGE = "remit-base"
REQUIRED = frozenset(filter(None, os.environ.get("REMIT_REQUIRE", "").split(",")))
_PACKAGES = {"dockerd": "docker.io", "docker": "docker.io", "mmdebstrap": "mmdebstrap", "runsc": "runsc"}
_START_SECONDS = 60
# An engine that sees none of the directories that a broker here could show it.
_ELSEWHERE = ["unshare", "--mount", "sh", "-c", """
mkdir -p /run/remit-docker
for place in /tmp /run/remit-docker /home /root /var/tmp; do
    mount -t tmpfs none $place
done
exec "$@"
""", "sh"]  # fmt: skip
_held: list[object] = []


class NoEngine(Exception):
    """There is no engine to be had here, and why."""


class PrivateEngine:
    """A dockerd in a directory of its own."""

    def __init__(self, *, live_restore: bool = False, distant: bool = False, tls: bool = False) -> None:
        self.folder = Path(
            tempfile.mkdtemp(prefix="remit-engine-", dir="/run" if os.geteuid() == 0 else None)
        )
        self.address = f"unix://{self.folder}/engine.sock"
        self.distant = distant
        self.certificates = self.folder / "certificates"
        if tls:
            make_certificates(self.certificates)
        if distant:
            self.address = f"tcp://127.0.0.1:{_free_port()}"
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
        if self.certificates.exists():
            place = self.certificates
            words |= {"tlsverify": "true", "tlscacert": f"{place}/ca.pem"}
            words |= {"tlscert": f"{place}/server-cert.pem", "tlskey": f"{place}/server-key.pem"}
        elif self.distant:
            words["tls"] = "false"
        command = ["dockerd", *(f"--{name}={value}" for name, value in words.items())]
        with (self.folder / "engine.log").open("ab") as log:
            self.process = subprocess.Popen(
                _ELSEWHERE + command if self.distant else command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def environment(self) -> dict[str, str]:
        """What tells a client where it is."""
        if not self.certificates.exists():
            return {"DOCKER_HOST": self.address}
        path = str(self.certificates)
        return {"DOCKER_HOST": self.address, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": path}

    def ask(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
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
def private_engine(*, live_restore: bool = False, distant: bool = False, tls: bool = False):
    """Give an engine with the image in it, to one test process at a time."""
    with _turn():
        install()
        engine = PrivateEngine(live_restore=live_restore, distant=distant, tls=tls)
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


def make_certificates(folder: Path) -> None:
    """Make an authority of the tests' own, a server's certificate for the loopback, and a client's."""
    folder.mkdir()
    authority = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    _write(folder, "ca", authority, _certificate(own, authority.public_key(), own, authority, ()))
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    for name, usage in (
        ("server-", ExtendedKeyUsageOID.SERVER_AUTH),
        ("", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name}end")])
        extensions = (loopback, x509.ExtendedKeyUsage([usage]))
        made = _certificate(subject, key.public_key(), own, authority, extensions)
        _write(folder, f"{name}cert", key, made)
        (folder / f"{name}cert-key.pem").rename(folder / f"{name}key.pem")


def _certificate(subject, key, issuer, signer, extensions):
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not extensions, path_length=None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _write(folder, name, key, certificate):
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(encoding))
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    (folder / f"{name}-key.pem").write_bytes(secret)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _has(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

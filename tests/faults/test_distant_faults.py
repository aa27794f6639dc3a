"""An engine that does not see this host: found out by proof, reached as configured, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sandboxes.base import ExecRequest, ResourceLimits, SandboxSpec
from sandboxes.docker import copied as copied_module
from sandboxes.docker import reap
from sandboxes.docker.engine import engine
from sandboxes.errors import EngineLost, SandboxDied, SandboxError, SandboxUnavailable
from sandboxes.open import open_docker
from sandboxes.workspace.changes import changed_paths, read_changes
from tests.engine import ROOT

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(600, func_only=True),
    # The SDK drops a socket unclosed when a certificate is refused.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
MAPPED = """
import mmap, os
with open("a.txt", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
    view[:5] = b"OMEGA"
os.utime("a.txt", ns=(1, 1))
"""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha\n")
    os.utime(folder / "a.txt", ns=(1, 1))
    (folder / ".env").write_text("SECRET\n")
    return folder


def spec(tree, **changes):
    return SandboxSpec(kind="docker", workspace=tree, **changes)


def sh(script, **more):
    return ExecRequest(argv=("sh", "-c", script), **more)


async def test_a_copy_is_what_the_receipt_says(distant_docker, tree):
    async with open_docker(spec(tree)) as sandbox:
        identity, layer = sandbox.identity, sandbox.layer
        controls = {control.name: control.state for control in sandbox.controls}

    assert (identity.strategy, identity.holds_snapshot, layer.strategy) == ("copy", True, "copy")
    assert identity.details["channel"] == "stream"
    assert controls["engine_configuration"] == "observed"


# A forwarder knows no certificates.
@pytest.mark.parametrize("distant_docker", ["tcp"], indirect=True)
async def test_an_engine_that_looks_near_and_finds_no_directory_of_ours_gets_a_copy(
    distant_docker, tree, tmp_path, monkeypatch
):
    with forwarded(distant_docker.address, tmp_path / "engine.sock") as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        assert (await engine().facts()).near
        async with open_docker(spec(tree)) as sandbox:
            strategy = sandbox.identity.strategy
            result = await sandbox.exec(sh("cat a.txt"))

        assert (strategy, result.output) == ("copy", b"alpha\n")
        assert engine().is_distant


async def test_an_overlay_that_was_asked_for_is_refused(distant_docker, tree):
    with pytest.raises(SandboxUnavailable, match="no overlay"):
        async with open_docker(spec(tree), strategy="overlay"):
            pass


async def test_a_write_through_a_mapping_is_seen_after_the_command_that_made_it(distant_docker, tree):
    async with open_docker(spec(tree)) as sandbox:
        await sandbox.exec(ExecRequest(argv=("python3", "-c", MAPPED)))
        seen = await anyio.to_thread.run_sync(changed_paths, sandbox.layer)

    assert seen == {"a.txt"}


async def test_a_hidden_file_is_not_at_the_engine_at_all(distant_docker, tree):
    async with open_docker(spec(tree, hidden=(".env",), read_only=("a.txt",))) as sandbox:
        script = "cat .env; echo x > .env; echo x > a.txt; mv a.txt b; rm -f .env a.txt; ls -A; cat a.txt"
        result = await sandbox.exec(sh(f"{script} 2>/dev/null"))

    assert b"SECRET" not in result.output
    assert b".env\na.txt\n" in result.output
    assert await anyio.to_thread.run_sync(read_changes, sandbox.layer) == ()


async def test_covers_that_gvisor_would_not_hold_are_refused(distant_docker, tree):
    if shutil.which("runsc") is None:
        pytest.skip("runsc is not installed")
    with pytest.raises(SandboxUnavailable, match="cannot protect paths"):
        async with open_docker(spec(tree, runtime="runsc", read_only=("a.txt",))):
            pass


async def test_more_than_may_come_back_is_a_death_and_changes_nothing_here(distant_docker, tree, monkeypatch):
    monkeypatch.setattr(copied_module, "_HOLE_BYTES", 0)
    limits = ResourceLimits(disk_bytes=1024 * 1024)
    async with open_docker(spec(tree, limits=limits)) as sandbox:
        with pytest.raises(SandboxDied, match="may come back"):
            await sandbox.exec(sh("truncate -s 64M hole"))

    assert await anyio.to_thread.run_sync(read_changes, sandbox.layer) == ()


async def test_a_killed_engine_ends_a_call_and_what_was_answered_is_here(distant_docker, tree):
    async with open_docker(spec(tree)) as sandbox:
        await sandbox.exec(sh("echo one > one"))
        await anyio.to_thread.run_sync(distant_docker.kill)
        with pytest.raises(SandboxError):
            await sandbox.exec(sh("echo two > two"))
    await anyio.to_thread.run_sync(distant_docker.start)

    changes = await anyio.to_thread.run_sync(read_changes, sandbox.layer)
    await anyio.to_thread.run_sync(_reap_as_somebody_else)
    assert [change.path for change in changes] == ["one"]
    assert await anyio.to_thread.run_sync(what_is_left, distant_docker) == ([], [])


def test_a_killed_brokers_containers_end_by_themselves_and_the_next_one_removes_them(distant_docker, tree):
    broker = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.docker_scenes", str(tree)], cwd=ROOT, stdout=subprocess.PIPE
    )
    broker.stdout.readline()
    running = distant_docker.ask("ps", "-q").stdout.split()
    broker.send_signal(signal.SIGKILL)
    broker.wait()
    broker.stdout.close()
    deadline = time.monotonic() + 10
    while distant_docker.ask("ps", "-q").stdout.split() and time.monotonic() < deadline:
        time.sleep(0.1)
    after = distant_docker.ask("ps", "-q").stdout.split()
    reap.reap_now(engine())

    assert (len(running), after) == (2, [])
    assert what_is_left(distant_docker) == ([], [])


async def test_the_current_context_leads_to_the_engine(distant_docker, tree, tmp_path, monkeypatch):
    await anyio.to_thread.run_sync(make_context, distant_docker, tmp_path / "config")
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    # An authority of the environment must not come before the context's own.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Path(__file__)))

    async with open_docker(spec(tree)) as sandbox:
        result = await sandbox.exec(sh("cat a.txt"))

    assert (sandbox.identity.strategy, result.output) == ("copy", b"alpha\n")


@pytest.mark.parametrize("distant_docker", ["tls"], indirect=True)
async def test_a_server_of_another_authority_is_not_spoken_to(distant_docker, tree, tmp_path, monkeypatch):
    from tests.engine import make_certificates

    await anyio.to_thread.run_sync(make_certificates, tmp_path / "others")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path / "others"))
    # Would be believed if the environment's authorities came first.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(distant_docker.certificates / "ca.pem"))

    with pytest.raises(EngineLost):
        async with open_docker(spec(tree)):
            pass


def make_context(own, folder):
    folder.mkdir()
    words = f"host={own.address}"
    if own.certificates.exists():
        place = own.certificates
        words += f",ca={place}/ca.pem,cert={place}/cert.pem,key={place}/key.pem"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    for command in (["create", "elsewhere", "--docker", words], ["use", "elsewhere"]):
        subprocess.run(
            ["docker", "context", *command],
            env={**environment, "DOCKER_CONFIG": str(folder)},
            check=True,
            capture_output=True,
            timeout=60,
        )


def what_is_left(own):
    return own.containers(), own.volumes()


def _reap_as_somebody_else():
    code = (
        "from sandboxes.docker import ownership, reap; from sandboxes.docker.engine import engine;"
        "ownership.Owner._lives = lambda self: False; reap.reap_now(engine())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@contextlib.contextmanager
def forwarded(address, place):
    """Give a socket on this host whose other end is an engine elsewhere, as a tunnel of ssh does."""
    host, port = address.removeprefix("tcp://").split(":")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(16)
        threading.Thread(target=_forward, args=(listener, (host, int(port))), daemon=True).start()
        yield f"unix://{place}"
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _forward(listener, target):
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.create_connection(target)
        threading.Thread(target=_join, args=(near, far), daemon=True).start()


def _join(near, far):
    with near, far:
        up = threading.Thread(target=_copy, args=(far, near), daemon=True)
        up.start()
        _copy(near, far)
        up.join()


def _copy(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)

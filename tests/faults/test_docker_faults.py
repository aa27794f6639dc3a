"""A broker, an engine or an image that goes away: each has its outcome, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sandboxes.base import ExecRequest, ResourceLimits, SandboxSpec
from sandboxes.docker import container as container_module
from sandboxes.docker import handshake, reap
from sandboxes.docker.engine import engine
from sandboxes.docker.ownership import Owner
from sandboxes.docker.place import OWNER_FILE, places_folder
from sandboxes.docker.removal import settle
from sandboxes.errors import EngineLost, EngineUnresponsive, SandboxDied, SandboxUnavailable
from sandboxes.open import open_docker
from tests.engine import REQUIRED, ROOT, NoEngine, private_engine

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(600, func_only=True),
    # The SDK drops a socket unclosed when nobody answers at its address.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SLEEP = ExecRequest(argv=("sh", "-c", "echo begun > begun; sleep 2; echo done"))


@pytest.fixture
def anyio_backend():
    return "asyncio"


def an_engine(monkeypatch, **how):
    try:
        with private_engine(**how) as own:
            monkeypatch.setenv("DOCKER_HOST", own.address)
            yield own
    except NoEngine as error:
        (pytest.fail if "docker" in REQUIRED else pytest.skip)(f"no engine: {error}")


@pytest.fixture
def own_engine(monkeypatch):
    yield from an_engine(monkeypatch)


@pytest.fixture
def lasting_engine(monkeypatch):
    yield from an_engine(monkeypatch, live_restore=True)


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha\n")
    return folder


def spec(tree, **changes):
    return SandboxSpec(kind="docker", workspace=tree, **changes)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_dead(pid):
    return not is_alive(pid)


def wait_until(holds, *, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.02)


def what_is_left(own):
    """Give what an engine has, and directories and mounts here that belong to no other living broker."""
    settle()
    places = [place for place in Path(places_folder()).iterdir() if not is_anothers(place)]
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [row for row in rows for place in places if str(place) in row]
    return own.containers(), own.volumes(), places, mounts


def is_anothers(place):
    try:
        owner = Owner.parse((place / OWNER_FILE).read_text())
    except OSError:
        return False
    return owner is not None and owner.pid != os.getpid() and not owner.is_gone()


def test_a_killed_broker_takes_its_container_along_and_the_next_one_removes_the_rest(private_docker, tree):
    for _ in range(3):
        broker = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.docker_scenes", str(tree)], cwd=ROOT, stdout=subprocess.PIPE
        )
        guest = int(broker.stdout.readline())
        broker.kill()
        broker.wait()
        broker.stdout.close()
        wait_until(partial(is_dead, guest))

    removed = reap.reap_now(engine())

    assert {each.kind for each in removed} >= {"container", "volume"}
    assert what_is_left(private_docker) == ([], [], [], [])


async def test_a_living_brokers_sandbox_is_not_taken_for_a_leftover(private_docker, tree):
    async with open_docker(spec(tree)) as sandbox:
        found = await anyio.to_thread.run_sync(reap.reap_now, engine())
        result = await sandbox.exec(ExecRequest(argv=("echo", "alive")))

    assert (found, result.output) == ((), b"alive\n")


async def test_a_killed_engine_neither_ends_a_call_nor_leaves_a_process(own_engine, tree):
    async with open_docker(spec(tree)) as sandbox, anyio.create_task_group() as tasks:
        results, guest = [], sandbox.guest_pid

        async def call():
            results.append(await sandbox.exec(SLEEP))

        tasks.start_soon(call)
        await anyio.sleep(0.5)
        await anyio.to_thread.run_sync(own_engine.kill)

    assert [result.output for result in results] == [b"done\n"]
    assert not await anyio.to_thread.run_sync(is_alive, guest)
    with pytest.raises(EngineLost):
        async with open_docker(spec(tree)):
            pass
    await anyio.to_thread.run_sync(own_engine.start)
    await anyio.to_thread.run_sync(_reap_as_somebody_else)
    assert await anyio.to_thread.run_sync(own_engine.containers) == []


async def test_an_engine_with_live_restore_comes_back_to_a_sandbox_that_still_works(lasting_engine, tree):
    async with open_docker(spec(tree)) as sandbox:
        await anyio.to_thread.run_sync(lasting_engine.kill)
        during = await sandbox.exec(ExecRequest(argv=("echo", "during")))
        await anyio.to_thread.run_sync(lasting_engine.start)
        after = await sandbox.exec(ExecRequest(argv=("echo", "after")))

    containers, _, places, mounts = await anyio.to_thread.run_sync(what_is_left, lasting_engine)
    # An engine that came back counts the volume as mounted for ever: it goes when the engine starts again.
    await anyio.to_thread.run_sync(lasting_engine.kill)
    await anyio.to_thread.run_sync(lasting_engine.start)
    await anyio.to_thread.run_sync(_reap_as_somebody_else)
    volumes = await anyio.to_thread.run_sync(lasting_engine.volumes)

    assert (during.output, after.output) == (b"during\n", b"after\n")
    assert (containers, places, mounts, volumes) == ([], [], [], [])


async def test_a_hung_engine_holds_up_neither_a_call_nor_the_end(private_docker, tree, monkeypatch):
    monkeypatch.setattr(container_module, "START_SECONDS", 2.0)
    async with open_docker(spec(tree)) as sandbox:
        guest = sandbox.guest_pid
        private_docker.process.send_signal(signal.SIGSTOP)
        result = await sandbox.exec(ExecRequest(argv=("echo", "still")))
        with anyio.fail_after(10):
            await sandbox.aclose()
        dead = not await anyio.to_thread.run_sync(is_alive, guest)
    with pytest.raises(EngineUnresponsive):
        async with open_docker(spec(tree)):
            pass
    private_docker.process.send_signal(signal.SIGCONT)
    await anyio.to_thread.run_sync(_reap_as_somebody_else)

    assert (result.output, dead) == (b"still\n", True)
    assert await anyio.to_thread.run_sync(private_docker.containers) == []


async def test_an_image_that_is_not_there_is_named_and_nothing_pulled(private_docker, tree):
    with pytest.raises(SandboxUnavailable, match="does not have the image") as refused:
        async with open_docker(spec(tree, image="no-such-image:1")):
            pass

    assert "images/build" in refused.value.hint
    assert await anyio.to_thread.run_sync(what_is_left, private_docker) == ([], [], [], [])


async def test_an_image_without_python_is_named_so(private_docker, tree, tmp_path):
    await anyio.to_thread.run_sync(_import_an_empty_image, private_docker, tmp_path)

    with pytest.raises(SandboxUnavailable, match="no python3"):
        async with open_docker(spec(tree, image="empty")):
            pass

    assert await anyio.to_thread.run_sync(what_is_left, private_docker) == ([], [], [], [])


async def test_a_guest_that_is_killed_is_a_death_and_leaves_nothing(private_docker, tree):
    async with open_docker(spec(tree)) as sandbox:
        os.kill(sandbox.guest_pid, signal.SIGKILL)
        with pytest.raises(SandboxDied):
            await sandbox.exec(ExecRequest(argv=("true",)))

    assert await anyio.to_thread.run_sync(what_is_left, private_docker) == ([], [], [], [])


async def test_a_guest_ends_by_itself_when_its_time_is_over(private_docker, tree, monkeypatch):
    monkeypatch.setattr(handshake, "LIFETIME_SECONDS", 1)
    async with open_docker(spec(tree)) as sandbox:
        with pytest.raises(SandboxDied):
            await sandbox.exec(ExecRequest(argv=("sleep", "60"), timeout_seconds=60))


async def test_a_full_disk_is_a_limit_and_the_sandbox_lives(private_docker, tree):
    limits = ResourceLimits(disk_bytes=4 * 1024 * 1024)
    async with open_docker(spec(tree, limits=limits)) as sandbox:
        full = await sandbox.exec(ExecRequest(argv=("sh", "-c", "cat /dev/zero > big")))
        after = await sandbox.exec(ExecRequest(argv=("sh", "-c", "rm big; echo alive")))

    assert (full.limit, after.output) == ("disk", b"alive\n")


def _reap_as_somebody_else():
    """Reap as a broker that comes later: what this process made and could not remove is nobody's then."""
    code = (
        "from sandboxes.docker import ownership, reap; from sandboxes.docker.engine import engine;"
        "ownership.Owner._lives = lambda self: False; reap.reap_now(engine())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def _import_an_empty_image(own, folder):
    (folder / "root").mkdir()
    (folder / "root" / "etc").mkdir()
    subprocess.run(["tar", "-C", str(folder / "root"), "-cf", str(folder / "empty.tar"), "."], check=True)
    own.ask("import", str(folder / "empty.tar"), "empty")

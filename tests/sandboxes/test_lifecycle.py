"""A sandbox leaves nothing behind, however it ends, and is believed only as far as the host saw it."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import anyio.lowlevel
import pytest

from sandboxes.base import ExecRequest, ResourceLimits, SandboxSpec
from sandboxes.bubblewrap import client as client_module
from sandboxes.bubblewrap import orphans
from sandboxes.errors import SandboxDied, SandboxError, SandboxUnavailable
from sandboxes.open import open_bubblewrap, open_sandbox

pytestmark = pytest.mark.anyio

BROKER = """
import anyio, sys
from pathlib import Path
from sandboxes.base import ExecRequest, SandboxSpec
from sandboxes.open import open_bubblewrap

async def main():
    async with open_bubblewrap(SandboxSpec(kind="bubblewrap", workspace=Path(sys.argv[1]))) as sandbox:
        print(sandbox.guest_pid, flush=True)
        script = "setsid sleep 987 & sleep 987"
        await sandbox.exec(ExecRequest(argv=("sh", "-c", script)))

anyio.run(main)
"""


def processes_below(pid):
    """Return the pids of a process's descendants, itself included."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                text = (path / "stat").read_text(errors="replace")
            except OSError:
                continue
            parents[int(path.name)] = int(text[text.rindex(")") + 2 :].split()[1])
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def alive(pids):
    return {pid for pid in pids if Path(f"/proc/{pid}").exists() and state(pid) not in "ZX"}


def state(pid):
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "X"
    return text[text.rindex(")") + 2]


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def mount_table():
    """Give the places that a sandbox of ours could have left mounted; engines of other tests come and go."""
    places = [row.split()[4] for row in Path("/proc/self/mountinfo").read_text().splitlines()]
    others = ("/remit-engine-", "/remit-docker/", "/docker/")
    return [place for place in places if not any(other in f"{place}/" for other in others)]


def content(name, directory):
    with open(os.open(name, os.O_RDONLY, dir_fd=directory)) as opened_file:
        return opened_file.read()


async def test_nothing_is_left_when_the_context_is_left(opened, sh):
    mounts = mount_table()
    async with opened() as sandbox:
        warm = sandbox.guest_pid
    del sandbox
    before = descriptors()

    async with opened() as sandbox, anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.ping)
        await sandbox.exec(sh("setsid sleep 99 & true"))
        inside = processes_below(sandbox.guest_pid)
        bwrap = os.getpid()
    left = alive(inside)
    del sandbox

    assert warm not in processes_below(bwrap)
    assert left == set()
    assert mount_table() == mounts
    assert descriptors() <= before


async def test_closing_while_a_command_runs_ends_it(opened, sh):
    ended = []

    async with opened() as sandbox, anyio.create_task_group() as tasks:

        async def run():
            with pytest.raises(SandboxError):
                await sandbox.exec(sh("setsid sleep 99 & sleep 99"))
            ended.append(True)

        tasks.start_soon(run)
        await anyio.sleep(0.3)
        inside = processes_below(sandbox.guest_pid)
        await sandbox.aclose()

    assert ended == [True]
    assert len(inside) >= 4
    assert alive(inside) == set()


async def test_closing_twice_and_using_it_afterwards(opened):
    async with opened() as sandbox:
        await sandbox.aclose()
        await sandbox.aclose()
        with pytest.raises(SandboxError):
            await sandbox.exec(ExecRequest(argv=("true",)))


async def test_a_killed_guest_is_noticed_and_takes_everything_with_it(opened, sh):
    async with opened() as sandbox, anyio.create_task_group() as tasks:

        async def kill():
            await anyio.sleep(0.3)
            inside.update(processes_below(sandbox.guest_pid))
            os.kill(sandbox.guest_pid, signal.SIGKILL)

        inside = set()
        tasks.start_soon(kill)
        with pytest.raises(SandboxDied):
            await sandbox.exec(sh("sleep 99"))
        with pytest.raises(SandboxDied):
            await sandbox.read_file("a.txt", max_bytes=1)
    assert alive(inside) == set()


def test_a_killed_broker_takes_the_sandbox_with_it(workspace):
    broker = subprocess.Popen(
        [sys.executable, "-c", BROKER, str(workspace)], stdout=subprocess.PIPE, text=True
    )
    assert broker.stdout is not None
    guest = int(broker.stdout.readline())
    deadline = time.monotonic() + 10
    while len(inside := processes_below(guest)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)

    broker.kill()
    broker.wait()
    broker.stdout.close()
    while alive(inside) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert len(inside) >= 4
    assert alive(inside) == set()


async def test_the_changes_can_be_read_after_the_sandbox_is_gone(opened, sh):
    async with opened() as sandbox:
        await sandbox.exec(sh("echo new > made; rm a.txt; chmod 700 sub"))
        layer = sandbox.layer

    if layer.strategy == "overlay":
        names = sorted(os.listdir(layer.upper_fd))
        gone = os.stat("a.txt", dir_fd=layer.upper_fd, follow_symlinks=False)
        assert names == ["a.txt", "made", "sub"]
        assert stat.S_ISCHR(gone.st_mode)
    assert content("made", layer.upper_fd) == "new\n"


async def test_the_copy_strategy_keeps_the_same_promises(opened, sh, workspace):
    os.symlink("a.txt", workspace / "link")
    (workspace / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (workspace / "run.sh").chmod(0o755)

    async with opened(strategy="copy", hidden=("sub",)) as sandbox:
        result = await sandbox.exec(sh("./run.sh; cat link; ls sub; echo x > a.txt; rm run.sh"))
        layer = sandbox.layer
        strategy = sandbox.identity.strategy

    assert strategy == layer.strategy == "copy"
    assert result.output == b"ran\nalpha\n"
    assert sorted(os.listdir(layer.upper_fd)) == ["a.txt", "link", "sub"]
    assert (workspace / "a.txt").read_text() == "alpha\n"


async def test_modes_of_the_users_tree_are_seen_inside(opened, workspace, sh):
    (workspace / "private").mkdir(mode=0o700)
    (workspace / "private" / "f").write_text("mine")
    (workspace / "private" / "f").chmod(0o600)

    async with opened() as sandbox:
        result = await sandbox.exec(
            sh("cat private/f && echo more >> private/f && stat -c '%a %u' private/f")
        )

    assert result.output == b"mine600 1000\n"


async def test_sandboxes_can_be_open_at_the_same_time(opened, sh):
    async with opened() as one, opened() as two:
        await one.exec(sh("echo one > mark"))
        other = await two.exec(sh("cat mark"))

    assert other.exit_code == 1
    assert one.identity.id != two.identity.id


async def test_controls_are_observed_in_the_live_sandbox(opened):
    async with opened() as sandbox:
        controls = {control.name: control for control in sandbox.controls}

    for name in (
        "seccomp",
        "capabilities",
        "no_new_privileges",
        "user_namespace",
        "uid",
        "read_only_root",
        "pids",
    ):
        assert controls[name].state == "observed", name
    assert not [control for control in controls.values() if control.required and control.state == "missing"]


async def test_a_sandbox_without_a_required_control_is_refused_and_killed(opened, monkeypatch):
    seen = {}
    real = client_module.observe

    def blind(pid):
        seen["inside"] = processes_below(pid)
        sighting = real(pid)
        return replace(sighting, status={**sighting.status, "Seccomp": "0"})

    monkeypatch.setattr(client_module, "observe", blind)

    with pytest.raises(SandboxUnavailable, match="seccomp"):
        async with opened():
            pass
    assert seen["inside"]
    assert alive(seen["inside"]) == set()


def commands_that_name(word):
    """Return the pids of all processes, orphans too, whose command line holds a word."""
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if word.encode() in (path / "cmdline").read_bytes().split(b"\0"):
                    found.add(int(path.name))
            except OSError:
                continue
    return found


async def test_cancelling_the_start_leaves_nothing(opened):
    mark = f"/w{secrets.token_hex(8)}"

    for milliseconds in range(0, 40, 2):
        with anyio.move_on_after(milliseconds / 1000):
            async with opened(mount=mark):
                await anyio.lowlevel.checkpoint()
    with anyio.move_on_after(5):
        while alive(commands_that_name(mark)):  # noqa: ASYNC110
            await anyio.sleep(0.05)

    assert alive(commands_that_name(mark)) == set()


def test_an_orphan_of_a_broker_killed_in_the_middle_of_a_start_is_ended(workspace, monkeypatch):
    argv = ["bwrap", "-c", "import time; print('up', flush=True); time.sleep(60)", orphans.START]
    with subprocess.Popen(argv, executable=sys.executable, stdout=subprocess.PIPE) as stuck:
        assert stuck.stdout is not None
        stuck.stdout.readline()
        orphans.end_orphans()
        young = stuck.poll()
        monkeypatch.setattr(orphans, "_OLD_SECONDS", 0.0)
        old = orphans.end_orphans()
        status = stuck.wait()

    assert young is None
    assert old >= 1
    assert status == -signal.SIGKILL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "docker", "mount": "/usr/x"}, "the container needs itself"),
        ({"image": "debian"}, "image"),
        ({"workspace": Path("/nonexistent")}, "no directory"),
        ({"mount": "relative"}, "absolute"),
        ({"mount": "/"}, "absolute"),
        ({"mount": "/a/../b"}, "absolute"),
        ({"mount": "/proc/x"}, "/proc"),
        ({"mount": "/usr"}, "hide"),
        ({"mount": "/usr/none/such"}, "/usr"),
        ({"mount": "/.remit/x"}, "/.remit"),
        ({"mount": "/tmp"}, "hide"),
        ({"hidden": ("a.txt",) * 1025}, "1024"),
    ],
)
async def test_a_spec_that_cannot_be_enforced_is_refused_before_anything_starts(workspace, changes, words):
    spec = replace(SandboxSpec(kind="bubblewrap", workspace=workspace), **changes)
    before = processes_below(os.getpid())

    with pytest.raises(SandboxUnavailable, match=words):
        async with open_sandbox(spec):
            pass

    assert processes_below(os.getpid()) == before


@pytest.mark.parametrize(
    "mount", ["/workspace", "/testbed", "/tmp/work", "/home/user/project", "/usr/src", "/srv/a b,c:d"]
)
async def test_the_workspace_can_be_mounted_almost_anywhere(opened, sh, mount):
    async with opened(mount=mount) as sandbox:
        result = await sandbox.exec(sh("pwd; cat a.txt; echo x > y"))

    assert result.output.decode() == f"{mount}\nalpha\n"


async def test_a_workspace_with_an_odd_name_can_be_used(tmp_path, sh):
    tree = tmp_path / "we ird,na:me\\"
    tree.mkdir()
    (tree / "f").write_text("in")

    async with open_bubblewrap(SandboxSpec(kind="bubblewrap", workspace=tree)) as sandbox:
        result = await sandbox.exec(sh("cat f"))

    assert result.output == b"in"


async def test_many_covers_can_be_asked_for(opened, workspace):
    names = tuple(f"secret{number}" for number in range(200))
    for name in names:
        (workspace / name).write_text("SECRET")

    async with opened(hidden=names, limits=ResourceLimits()) as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("grep", "-rc", "SECRET", ".")))

    assert b":1" not in result.output

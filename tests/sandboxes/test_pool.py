"""A leased sandbox is new, is the task's own, and is gone with its lease."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import anyio
import pytest

from sandboxes.base import ExecRequest, ResourceLimits, SandboxSpec
from sandboxes.errors import SandboxStartFailed, SandboxUnavailable
from sandboxes.open import open_bubblewrap
from sandboxes.pool import WarmPool

pytestmark = pytest.mark.anyio


@pytest.fixture
def spec(workspace):
    return SandboxSpec(kind="bubblewrap", workspace=workspace)


@pytest.fixture
async def pool(spec):
    async with WarmPool(spec) as pool:
        with anyio.fail_after(10):
            await pool.filled()
        yield pool


def is_alive(pid):
    """Whether a process can still do something: a dead one that nobody has waited for has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


async def test_a_waiting_sandbox_is_leased_and_another_takes_its_place(pool, spec):
    waiting = pool._waiting[0].sandbox

    async with pool.lease(spec) as sandbox:
        answer = await sandbox.exec(ExecRequest(argv=("cat", "a.txt")))
        await pool.filled()
        ready = pool.waiting

    assert sandbox is waiting
    assert answer.output == b"alpha\n"
    assert ready == 1


async def test_no_task_gets_what_another_had(pool, spec):
    found = []

    for _ in range(3):
        async with pool.lease(spec) as sandbox:
            await sandbox.write_file("left", b"secret")
            await sandbox.exec(ExecRequest(argv=("touch", "/tmp/left")))
            found.append(sandbox.identity.id)
        await pool.filled()
    async with pool.lease(spec) as sandbox:
        seen = await sandbox.exec(ExecRequest(argv=("ls", "left", "/tmp/left")))

    assert len({*found, sandbox.identity.id}) == 4
    assert seen.exit_code != 0


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": ("a.txt",)},
        {"read_only": ("sub",)},
        {"limits": ResourceLimits(pids=9)},
        {"mount": "/other"},
    ],
)
async def test_another_spec_gets_a_sandbox_of_its_own(pool, spec, changes):
    other = dataclasses.replace(spec, **changes)

    async with pool.lease(other) as sandbox:
        still_waiting = pool.waiting
        identity = sandbox.identity.id

    assert still_waiting == 1
    assert identity != pool._waiting[0].sandbox.identity.id


async def test_a_file_that_changed_while_it_waited_is_seen_as_it_is_now(pool, spec, workspace):
    (workspace / "a.txt").write_text("newer\n")

    async with pool.lease(spec) as sandbox:
        answer = await sandbox.exec(ExecRequest(argv=("cat", "a.txt")))

    assert answer.output == b"newer\n"


async def test_one_that_died_while_it_waited_is_not_leased(pool, spec):
    dead = pool._waiting[0].sandbox
    os.kill(dead.guest_pid, signal.SIGKILL)

    async with pool.lease(spec) as sandbox:
        answer = await sandbox.exec(ExecRequest(argv=("true",)))

    assert sandbox is not dead
    assert answer.exit_code == 0


async def test_more_leases_than_wait_are_all_served(spec):
    async def use(pool, ids):
        async with pool.lease(spec) as sandbox:
            await sandbox.exec(ExecRequest(argv=("true",)))
            ids.append(sandbox.identity.id)

    ids = []
    async with WarmPool(spec, size=2) as pool, anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(use, pool, ids)

    assert len(set(ids)) == 8


async def test_nothing_lives_after_the_pool(spec):
    async with WarmPool(spec, size=2) as pool:
        await pool.filled()
        pids = [waiting.sandbox.guest_pid for waiting in pool._waiting]
        assert all(map(is_alive, pids))

    assert not any(map(is_alive, pids))


async def test_nothing_lives_after_a_pool_that_was_given_up_while_it_filled(spec):
    opened = []

    def noting(spec):
        opened.append(open_bubblewrap(spec))
        return opened[-1]

    for _ in range(5):
        async with WarmPool(spec, opener=noting):
            await anyio.lowlevel.checkpoint()

    assert all(sandbox._process is None for sandbox in opened)


async def test_a_copy_of_the_tree_is_not_kept_waiting(spec):
    def copying(spec):
        return open_bubblewrap(spec, strategy="copy")

    async with WarmPool(spec, opener=copying) as pool:
        await pool.filled()
        waiting = pool.waiting
        async with pool.lease(spec) as sandbox:
            strategy = sandbox.identity.strategy

    assert waiting == 0
    assert strategy == "copy"


async def test_whoever_leases_what_cannot_be_had_learns_why(workspace):
    spec = SandboxSpec(kind="bubblewrap", workspace=workspace, mount="/proc")

    async with WarmPool(spec) as pool:
        await pool.filled()
        with pytest.raises(SandboxUnavailable, match="/proc"):
            async with pool.lease(spec):
                pytest.fail("leased")


async def test_what_its_user_raises_comes_out_as_it_is(spec):
    async def use():
        async with WarmPool(spec):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()


async def test_an_opening_that_failed_is_tried_again_after_the_next_lease(spec):
    failures = [SandboxStartFailed("no"), None]

    def failing(spec):
        if failures and (failure := failures.pop()):
            raise failure
        return open_bubblewrap(spec)

    async with WarmPool(spec, size=2, opener=failing) as pool:
        with anyio.fail_after(10):
            await pool.filled()
            before = pool.waiting
            async with pool.lease(spec):
                await pool.filled()
                after = pool.waiting

    assert (before, after) == (1, 2)


async def test_a_directory_that_took_the_place_of_another_is_another_workspace(pool, spec, workspace):
    workspace.rename(workspace.with_name("old"))
    workspace.mkdir()
    (workspace / "a.txt").write_text("another\n")

    async with pool.lease(spec) as sandbox:
        answer = await sandbox.exec(ExecRequest(argv=("cat", "a.txt")))

    assert answer.output == b"another\n"

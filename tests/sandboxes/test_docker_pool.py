"""Containers that wait in a pool: leased once, closed by whoever holds the lease, gone with the pool."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

pytest.importorskip("docker")

from sandboxes.base import ExecRequest, SandboxSpec
from sandboxes.docker.removal import settle
from sandboxes.open import open_docker
from sandboxes.pool import WarmPool

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300, func_only=True)]


@pytest.fixture
def spec(private_docker, workspace):
    return SandboxSpec(kind="docker", workspace=workspace)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


async def filled(pool):
    with anyio.fail_after(60):
        await pool.filled()


async def test_a_waiting_container_is_leased_by_another_task_and_gone_with_its_lease(spec):
    async with WarmPool(spec, opener=open_docker) as pool:
        await filled(pool)
        waiting = pool._waiting[0].sandbox
        answers = []

        async def use():
            async with pool.lease(spec) as sandbox:
                answers.append((sandbox, await sandbox.exec(ExecRequest(argv=("cat", "a.txt")))))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use)
        alive = await anyio.to_thread.run_sync(is_alive, waiting.guest_pid)
        await filled(pool)

        assert pool._waiting[0].sandbox is not waiting

    assert answers[0][0] is waiting
    assert answers[0][1].output == b"alpha\n"
    assert not alive


async def test_one_that_died_while_it_waited_is_not_leased(spec):
    async with WarmPool(spec, opener=open_docker) as pool:
        await filled(pool)
        dead = pool._waiting[0].sandbox
        os.kill(dead.guest_pid, signal.SIGKILL)

        async with pool.lease(spec) as sandbox:
            answer = await sandbox.exec(ExecRequest(argv=("true",)))

    assert sandbox is not dead
    assert answer.exit_code == 0


async def test_nothing_is_left_of_a_pool(spec, private_docker):
    async with WarmPool(spec, size=2, opener=open_docker) as pool:
        await filled(pool)
        pids = [waiting.sandbox.guest_pid for waiting in pool._waiting]

    alive = [await anyio.to_thread.run_sync(is_alive, pid) for pid in pids]
    settled = await anyio.to_thread.run_sync(settle)

    assert (alive, settled) == ([False, False], True)
    assert await anyio.to_thread.run_sync(private_docker.containers) == []
    assert await anyio.to_thread.run_sync(private_docker.volumes) == []

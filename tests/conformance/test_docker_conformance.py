"""The public suite over containers of an engine: runc and gVisor, and the walk where openat2 is missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial

import anyio.to_thread
import pytest

from sandboxes.conformance import CHECKS, make_workspace
from sandboxes.docker.removal import settle
from sandboxes.open import open_docker
from tests.engine import REQUIRED

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600, func_only=True)]
BY_NAME = pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in CHECKS])
FILES = [pytest.param(check, id=check.name) for check in CHECKS if check.needs == "files"]


@pytest.fixture
def anyio_backend():
    """Take one event loop: what differs by loop is held by the suite over the embedded sandbox."""
    return "asyncio"


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path)


@pytest.fixture
def gvisor(private_docker):
    if shutil.which("runsc") is None:
        (pytest.fail if "runsc" in REQUIRED else pytest.skip)("runsc is not installed")


def container(spec, *, runtime, **how):
    return open_docker(replace(spec, kind="docker", runtime=runtime), **how)


@BY_NAME
async def test_a_container_conforms(private_docker, workspace, check):
    await check.run(partial(container, runtime="runc"), workspace)


@BY_NAME
async def test_a_container_of_gvisor_conforms(private_docker, gvisor, workspace, check):
    await check.run(partial(container, runtime="runsc"), workspace)


@pytest.mark.parametrize("check", FILES)
async def test_a_container_without_openat2_conforms(private_docker, workspace, check):
    await check.run(partial(container, runtime="runc", opener="walk"), workspace)


async def test_nothing_is_left_at_the_engine(private_docker):
    assert await anyio.to_thread.run_sync(settle)
    assert (private_docker.containers(), private_docker.volumes()) == ([], [])

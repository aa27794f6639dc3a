"""The public suite over containers of an engine that sees nothing of this host, over TCP and under TLS."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial

import anyio
import anyio.to_thread
import pytest

from sandboxes.conformance import CHECKS, make_workspace
from sandboxes.docker.removal import settle
from sandboxes.open import open_docker
from tests.engine import REQUIRED

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600, func_only=True)]
WITHOUT_COVERS = [check for check in CHECKS if check.needs == "files" and "hidden" not in check.name]
# What differs under TLS is how bytes travel.
UNDER_TLS = [
    {check.name: check for check in CHECKS}[name]
    for name in (
        "writing",
        "hidden_and_kept_paths_hold_for_commands",
        "output_is_merged_in_order",
        "calls_run_at_the_same_time",
        "limit_output",
    )
]


OVER_TCP = pytest.mark.parametrize("distant_docker", ["tcp"], indirect=True)
OVER_TLS = pytest.mark.parametrize("distant_docker", ["tls"], indirect=True)


def each(checks):
    return pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in checks])


@pytest.fixture
def anyio_backend():
    """Take one event loop: what differs by loop is held by the suite over the embedded sandbox."""
    return "asyncio"


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path)


def container(spec, *, runtime, **how):
    return open_docker(replace(spec, kind="docker", runtime=runtime), **how)


@OVER_TCP
@each(CHECKS)
async def test_a_container_of_a_distant_engine_conforms(distant_docker, workspace, check):
    await check.run(partial(container, runtime="runc"), workspace)


@OVER_TCP
@each(WITHOUT_COVERS)
async def test_a_container_of_a_distant_engine_with_gvisor_conforms(distant_docker, workspace, check):
    if shutil.which("runsc") is None:
        (pytest.fail if "runsc" in REQUIRED else pytest.skip)("runsc is not installed")
    await check.run(partial(container, runtime="runsc"), workspace)


@OVER_TLS
@each(UNDER_TLS)
async def test_a_container_of_a_distant_engine_conforms_under_tls(distant_docker, workspace, check):
    await check.run(partial(container, runtime="runc"), workspace)


async def test_nothing_is_left_at_the_engine(distant_docker):
    assert await anyio.to_thread.run_sync(settle)
    assert (distant_docker.containers(), distant_docker.volumes()) == ([], [])

from __future__ import annotations

import threading

import pytest
from blockbuster import blockbuster_ctx

from sandboxes.testing import REMOVING
from tests.engine import REQUIRED, NoEngine, private_engine


@pytest.fixture(params=[pytest.param("asyncio", id="asyncio"), pytest.param("trio", id="trio")])
def anyio_backend(request):
    return request.param


@pytest.fixture(autouse=True)
def no_test_blocks_the_event_loop():
    """Fail a test in which our code makes a blocking call on a running asyncio loop.

    A write to a descriptor that cannot wait, as the journal's single write to the page cache, is not one.
    """
    wait_for_removals()
    with blockbuster_ctx(["budgets", "sandboxes", "executor"]) as detector:
        yield detector
        wait_for_removals()


def wait_for_removals():
    """Wait for fakes that are being removed: Python 3.13 compares functions that the detector replaces."""
    for thread in threading.enumerate():
        if thread.name in {REMOVING, "remit-forget"} and thread.is_alive():
            thread.join(10)


@pytest.fixture(scope="module")
def private_docker():
    """Start an engine of the tests' own, make it the one that our code finds, and stop it with the module."""
    yield from _engine_of_ours()


@pytest.fixture(scope="module", params=["tcp", "tls"])
def distant_docker(request):
    """The same for an engine that sees none of this host's directories and is reached over a network."""
    yield from _engine_of_ours(distant=True, tls=request.param == "tls")


def _engine_of_ours(**how):
    try:
        with private_engine(**how) as engine, pytest.MonkeyPatch.context() as patch:
            for name, value in engine.environment.items():
                patch.setenv(name, value)
            yield engine
    except NoEngine as error:
        if "docker" in REQUIRED:
            pytest.fail(f"docker is required: {error}")
        pytest.skip(f"no engine: {error}")

"""The public suite over the embedded sandbox, with both ways of keeping changes, and over the fake one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest

from sandboxes.base import FileProblem
from sandboxes.conformance import CHECKS, NotConforming, make_workspace, run_conformance
from sandboxes.conformance.suite import done
from sandboxes.open import open_bubblewrap, open_sandbox
from sandboxes.probe import probe
from sandboxes.testing import fake_open

pytestmark = pytest.mark.anyio
BY_NAME = pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in CHECKS])
FILES = [pytest.param(check, id=check.name) for check in CHECKS if check.needs == "files"]


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path)


@pytest.fixture(scope="session")
def bubblewrap():
    report = next(report for report in probe() if report.backend == "bubblewrap")
    if not report.usable:
        pytest.fail(f"bubblewrap: {report.reason}")


@BY_NAME
async def test_the_embedded_sandbox_conforms(bubblewrap, workspace, check):
    await check.run(open_sandbox, workspace)


@pytest.mark.parametrize("check", FILES)
async def test_the_embedded_sandbox_with_a_copy_conforms(bubblewrap, workspace, check):
    await check.run(partial(open_bubblewrap, strategy="copy"), workspace)


@pytest.mark.parametrize("check", FILES)
async def test_the_fake_sandbox_conforms(workspace, check):
    await check.run(fake_open, workspace)


async def test_a_backend_that_does_not_conform_is_told_what_it_did():
    class Careless:
        def __init__(self, sandbox):
            self._sandbox = sandbox

        async def read_file(self, path, *, offset=0, max_bytes):
            return await self._sandbox.read_file(path, offset=0, max_bytes=max_bytes)

    @asynccontextmanager
    async def open_careless(spec):
        async with fake_open(spec) as sandbox:
            yield Careless(sandbox)

    reading = next(check for check in CHECKS if check.name == "reading")
    (outcome,) = await run_conformance(open_careless, checks=(reading,))

    assert not outcome.passed
    assert outcome.detail.startswith("NotConforming: a part: expected")


async def test_a_check_is_named_after_what_it_holds():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    with pytest.raises(NotConforming):
        done(FileProblem(kind="not_found", path="x", detail="nothing"))

from __future__ import annotations

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(params=[pytest.param("asyncio", id="asyncio"), pytest.param("trio", id="trio")])
def anyio_backend(request):
    return request.param


@pytest.fixture(autouse=True)
def no_test_blocks_the_event_loop():
    """Fail a test in which our code makes a blocking call on a running asyncio loop.

    A write to a descriptor that cannot wait, as the journal's single write to the page cache, is not one.
    """
    with blockbuster_ctx(["budgets", "sandboxes", "executor"]) as detector:
        yield detector

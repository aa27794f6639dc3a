"""The guard against blocking calls is itself seen to fail."""

from __future__ import annotations

import asyncio

import pytest
from blockbuster import BlockingError

from executor.tripwire import fingerprints


def test_a_blocking_call_in_our_code_on_a_running_loop_fails_the_test(tmp_path):
    watched = tmp_path / "auth.json"
    watched.write_text("{}")

    async def on_the_loop():
        return fingerprints([str(watched)])

    with pytest.raises(BlockingError):
        asyncio.run(on_the_loop())

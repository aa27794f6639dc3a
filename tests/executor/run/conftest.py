from __future__ import annotations

import pytest

from sandboxes.open import open_sandbox


@pytest.fixture
def contract(remit):
    """A remit with a sandbox for each call."""

    def made(*, sandbox=None, **sections):
        return remit(sandbox={"lifetime": "call", **(sandbox or {})}, **sections)

    return made


@pytest.fixture
def fresh(place, contract):
    def opened(given=None, **options):
        options.setdefault("sandbox_factory", open_sandbox)
        return place.run(given or contract(), **options)

    return opened

from __future__ import annotations

import pytest

from sandboxes.base import ExecRequest, ResourceLimits, SandboxSpec
from sandboxes.open import open_bubblewrap


@pytest.fixture
def workspace(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("alpha\n")
    (tree / "sub").mkdir()
    (tree / "sub" / "b.txt").write_text("beta\n")
    return tree


@pytest.fixture
def opened(workspace):
    """Return a function that opens an embedded sandbox over the workspace."""

    def open_it(*, strategy="auto", opener="openat2", limits=None, **changes):
        spec = SandboxSpec(
            kind="bubblewrap", workspace=workspace, limits=limits or ResourceLimits(), **changes
        )
        return open_bubblewrap(spec, strategy=strategy, opener=opener)

    return open_it


@pytest.fixture
def sh():
    """Return a function that makes the request for a shell command."""

    def request(script, **changes):
        return ExecRequest(argv=("/bin/sh", "-c", script), **changes)

    return request

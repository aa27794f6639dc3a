"""The changes of a closed sandbox, as they lie, and what tells one state from the next."""

from __future__ import annotations

import os

import anyio.to_thread
import pytest

from sandboxes.base import SandboxSpec
from sandboxes.open import open_bubblewrap
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.restore import restore_changes
from sandboxes.workspace.snapshot import Snapshot, changes_between

pytestmark = pytest.mark.anyio
LONG_AGO_NS = 1_000_000_000_123_456_789


@pytest.fixture
def lower(tmp_path):
    root = tmp_path / "lower"
    (root / "d").mkdir(parents=True)
    for name in ("a", "b", "d/c"):
        (root / name).write_text("old")
    return root


@pytest.fixture(params=["overlay", "copy"])
def opened(request, lower):
    return lambda: open_bubblewrap(SandboxSpec(kind="bubblewrap", workspace=lower), strategy=request.param)


async def snapshot(sandbox):
    return await anyio.to_thread.run_sync(Snapshot.of, sandbox)


@pytest.fixture
async def first(opened):
    async with opened() as sandbox:
        await sandbox.write_file("a", b"new", mode=0o600, modified_ns=LONG_AGO_NS)
        await sandbox.write_file("x/y/\udcff", b"", modified_ns=LONG_AGO_NS + 1)
        await sandbox.remove("b")
        await sandbox.make_symlink("link", target="a")
    return await snapshot(sandbox)


async def test_the_next_sandbox_has_the_same_changes_with_their_times(opened, first):
    async with opened() as sandbox:
        await restore_changes(first, sandbox)
    again = await snapshot(sandbox)

    assert again.changes == first.changes
    assert changes_between(first, again) == ()
    files = [change for change in again.changes if change.sha256 is not None]
    times = await anyio.to_thread.run_sync(
        lambda: [again.content(change).modified_ns for change in files],
    )
    assert times == [LONG_AGO_NS, LONG_AGO_NS + 1]


async def test_what_differs_is_told_also_when_it_is_the_trees_again(opened, first, lower):
    async with opened() as sandbox:
        await restore_changes(first, sandbox)
        await sandbox.write_file("b", b"old")
        await sandbox.write_file("d/c", b"new")
        await sandbox.remove("link")
    differing = changes_between(first, await snapshot(sandbox))

    assert [(change.path, change.change) for change in differing] == [
        ("b", "deleted"),
        ("d/c", "modified"),
        ("link", "added"),
    ]


async def test_content_that_changed_after_the_sandbox_was_closed_is_not_believed(first):
    def meddle():
        descriptor = os.open("a", os.O_WRONLY, dir_fd=first.layer.upper_fd)
        os.write(descriptor, b"bad")
        os.close(descriptor)
        [change] = [change for change in first.changes if change.path == "a"]
        with pytest.raises(LayerUnreadable, match="changed"):
            first.content(change)

    await anyio.to_thread.run_sync(meddle)

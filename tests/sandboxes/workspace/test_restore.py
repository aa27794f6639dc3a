from __future__ import annotations

import anyio.to_thread
import pytest

from sandboxes.base import ResourceLimits, SandboxSpec
from sandboxes.testing import fake_open
from sandboxes.workspace import RestoreFailed, export_changes, read_changes, restore_changes

pytestmark = pytest.mark.anyio

OPERATIONS = [
    ["write", ["file"], "new\n", 0o755],
    ["remove", ["tree"]],
    ["remove", ["turns"]],
    ["mkdir", ["turns"], 0o700],
    ["write", ["turns", "\xff"], "x", 0o644],
    ["chmod", ["turns"], 0o500],
    ["remove", ["link"]],
    ["symlink", ["link"], "elsewhere"],
    ["remove", ["was-link"]],
    ["write", ["was-link"], "x", 0o644],
    ["write", ["shut", "in"], "y", 0o600],
    ["chmod", ["shut"], 0o500],
]


@pytest.fixture
def lower(tmp_path):
    root = tmp_path / "lower"
    (root / "tree" / "deep").mkdir(parents=True)
    (root / "shut").mkdir()
    for name in ("file", "turns", "tree/deep/leaf"):
        (root / name).write_bytes(b"old")
    (root / "link").symlink_to("file")
    (root / "was-link").symlink_to("file")
    return root


@pytest.fixture
def manifest(lower, change_tree, tmp_path):
    layer, _ = change_tree(lower, OPERATIONS, strategy="copy")
    return export_changes(layer, tmp_path / "changes")


async def test_a_fresh_sandbox_gets_what_the_run_left(manifest, lower):
    async with fake_open(SandboxSpec(kind="bubblewrap", workspace=lower)) as sandbox:
        await restore_changes(manifest, sandbox)
    again = await anyio.to_thread.run_sync(read_changes, sandbox.layer)

    assert again == manifest.changes
    assert len(again) == 10


async def test_changes_that_do_not_fit_are_an_error(manifest, lower):
    limits = ResourceLimits(disk_bytes=1)
    async with fake_open(SandboxSpec(kind="bubblewrap", workspace=lower, limits=limits)) as sandbox:
        with pytest.raises(RestoreFailed) as failed:
            await restore_changes(manifest, sandbox)

    assert "no_space" in str(failed.value)


@pytest.fixture
def with_fifo(lower, change_tree, tmp_path):
    layer, _ = change_tree(lower, [["mkfifo", ["pipe"]]], strategy="copy")
    return export_changes(layer, tmp_path / "changes")


async def test_a_fifo_is_left_out(lower, with_fifo):
    async with fake_open(SandboxSpec(kind="bubblewrap", workspace=lower)) as sandbox:
        await restore_changes(with_fifo, sandbox)
        listing = await sandbox.list_directory(".")

    assert "pipe" not in [entry.path for entry in listing.entries]

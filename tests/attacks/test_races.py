"""A command swaps directories and links while file tools work: nothing outside is read or written, ever."""

from __future__ import annotations

import os

import anyio
import pytest

from sandboxes.base import ExecRequest, FileContent, FileProblem, FileWritten
from sandboxes.guest import paths

pytestmark = pytest.mark.anyio

TRIES = [300, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
SECRET = b"CANARY-OUTSIDE"

# "d" and "f" are by turns honest and links to /tmp/outside, where the attacker's bait lies.
SWAPPER = """
import os
os.makedirs("/tmp/outside", exist_ok=True)
open("/tmp/outside/f", "w").write("CANARY-OUTSIDE")
os.makedirs("d", exist_ok=True)
open("d/f", "w").write("honest")
os.symlink("/tmp/outside", "l")
open("g", "w").write("honest")
os.symlink("/tmp/outside/f", "lg")
print("ready", flush=True)
open("ready", "w").close()
while True:
    for a, b in (("d", "l"), ("g", "lg")):
        os.rename(a, "swap"); os.rename(b, a); os.rename("swap", b)
"""


async def swapping(sandbox, tasks):
    tasks.start_soon(sandbox.exec, ExecRequest(argv=("python3", "-c", SWAPPER), timeout_seconds=900))
    while isinstance(await sandbox.read_file("ready", max_bytes=1), FileProblem):  # noqa: ASYNC110
        await anyio.sleep(0.01)


@pytest.mark.parametrize("tries", TRIES)
async def test_a_swapped_link_never_leads_a_read_outside(opened, tries):
    seen = set()

    async with opened() as sandbox, anyio.create_task_group() as tasks:
        await swapping(sandbox, tasks)
        for _ in range(tries // 2):
            for path in ("d/f", "g"):
                answer = await sandbox.read_file(path, max_bytes=100)
                seen.add(answer.data if isinstance(answer, FileContent) else answer.kind)
        tasks.cancel_scope.cancel()

    assert SECRET not in seen
    assert seen <= {b"honest", "symlink", "not_found"}


@pytest.mark.parametrize("tries", TRIES)
async def test_a_swapped_link_never_leads_a_write_outside(opened, tries):
    kinds = set()

    async with opened() as sandbox, anyio.create_task_group() as tasks:
        await swapping(sandbox, tasks)
        for number in range(tries // 3):
            for path in ("d/f", f"d/new{number % 10}", "g"):
                answer = await sandbox.write_file(path, b"written", create_parents=False)
                kinds.add("written" if isinstance(answer, FileWritten) else answer.kind)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            outside = await sandbox.exec(
                ExecRequest(argv=("sh", "-c", "ls -A /tmp/outside; cat /tmp/outside/f"))
            )

    assert outside.output == b"f\n" + SECRET
    assert kinds <= {"written", "symlink", "not_found"}


def test_the_walk_that_replaces_openat2_holds_the_same_promise(opened, monkeypatch, tmp_path):

    monkeypatch.setattr(paths, "openat2_missing", True)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "f").write_text("honest")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "in" / "link").symlink_to("../secret")
    (tmp_path / "in" / "dir").symlink_to("sub")

    root = os.open(tmp_path / "in", os.O_RDONLY)
    try:
        for path in (b"link", b"dir/f", b"../secret", b"/etc/passwd", b"sub/../../secret"):
            with pytest.raises(OSError, match=r"symbolic|leaves|No such|Too many"):
                paths.open_beneath(root, path, os.O_RDONLY)
        with pytest.raises(OSError, match=r"symbolic|Too many"):
            paths.open_beneath(root, b"dir", os.O_PATH | os.O_DIRECTORY)
        good = paths.open_beneath(root, b"sub/f", os.O_RDONLY)
        assert os.read(good, 10) == b"honest"
        os.close(good)
    finally:
        os.close(root)

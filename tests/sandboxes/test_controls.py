"""What is said of the covers is what the kernel says, not what was asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anyio.to_thread
import pytest

from sandboxes.base import SandboxSpec
from sandboxes.bubblewrap.controls import controls, observe
from sandboxes.open import open_sandbox

pytestmark = pytest.mark.anyio

ODD_NAMES = ("plain", "a b", "a#b", "back\\slash", "tab\tname", "line\nname", "byte\udcff")


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    for name in ODD_NAMES:
        (root / name).write_text("secret")
    (root / "kept").mkdir()
    (root / "link").symlink_to("plain")
    return root


async def judged(spec, sighting):
    return covers(
        await anyio.to_thread.run_sync(partial(controls, spec, sighting, host_uid=1, key_ring=True))
    )


def covers(found):
    (control,) = [control for control in found if control.name == "covers"]
    return control


async def test_every_cover_is_seen_in_the_live_sandbox_whatever_its_name(workspace):
    spec = SandboxSpec(
        kind="bubblewrap", workspace=workspace, hidden=(*ODD_NAMES, "link"), read_only=("kept",)
    )

    async with open_sandbox(spec) as sandbox:
        control = covers(sandbox.controls)

    assert (control.state, control.required) == ("observed", True)
    assert control.observed == "8 paths"


async def test_a_cover_that_is_not_there_is_missing_and_required(workspace):
    spec = SandboxSpec(kind="bubblewrap", workspace=workspace, hidden=("plain",))

    async with open_sandbox(spec) as sandbox:
        sighting = await anyio.to_thread.run_sync(observe, sandbox.guest_pid)
    wanted = replace(spec, hidden=("plain", "a b"))
    control = await judged(wanted, sighting)

    assert (control.state, control.required) == ("missing", True)
    assert "'a b'" in control.observed


async def test_a_cover_that_can_be_written_does_not_count(workspace):
    spec = SandboxSpec(kind="bubblewrap", workspace=workspace, hidden=("plain",))

    async with open_sandbox(spec) as sandbox:
        sighting = await anyio.to_thread.run_sync(observe, sandbox.guest_pid)
    place = f"{spec.mount}/plain"
    kind, options = sighting.mounts[place]
    writable = {**sighting.mounts, place: (kind, options.replace("ro", "rw", 1))}
    control = await judged(spec, replace(sighting, mounts=writable))

    assert control.state == "missing"

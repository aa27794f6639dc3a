"""Open a sandbox for a spec, or say in one sentence why that cannot be had here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread

from sandboxes.base import Sandbox, SandboxSpec
from sandboxes.bubblewrap.client import BubblewrapSandbox, Strategy
from sandboxes.bubblewrap.handshake import MOST_COVERS, Opener
from sandboxes.bubblewrap.rootfs import mount_objection
from sandboxes.errors import SandboxUnavailable


@asynccontextmanager
async def open_sandbox(spec: SandboxSpec) -> AsyncIterator[Sandbox]:
    """Open a sandbox; leaving the context kills everything inside.

    Raises:
        SandboxUnavailable: This host cannot give what the spec asks for; nothing was started.
        SandboxStartFailed: The start went wrong.
    """
    await anyio.to_thread.run_sync(check_spec, spec)
    async with open_bubblewrap(spec) as sandbox:
        yield sandbox


def open_bubblewrap(
    spec: SandboxSpec, *, strategy: Strategy = "auto", opener: Opener = "openat2"
) -> BubblewrapSandbox:
    """Return an embedded sandbox to enter, with a chosen way of keeping the changes.

    ``opener`` makes file tools open paths as they do on a kernel without openat2.
    """
    return BubblewrapSandbox(spec, strategy=strategy, opener=opener)


def check_spec(spec: SandboxSpec) -> None:
    """Refuse what no backend here enforces.

    Raises:
        SandboxUnavailable: With one sentence and a hint.
    """
    if spec.kind != "bubblewrap":
        raise SandboxUnavailable(
            f"sandbox kind {spec.kind!r} cannot be enforced here", hint="use kind: bubblewrap"
        )
    if spec.runtime is not None or spec.image is not None:
        raise SandboxUnavailable("kind bubblewrap has neither runtime nor image", hint="leave both out")
    if not spec.workspace.is_dir():
        raise SandboxUnavailable(f"workspace {spec.workspace} is no directory")
    objection = mount_objection(spec.mount)
    if objection is not None:
        raise SandboxUnavailable(objection, hint="choose another scope.mount, such as /workspace")
    covers = len(spec.hidden) + len(spec.read_only)
    if covers > MOST_COVERS:
        raise SandboxUnavailable(
            f"{covers} paths are to be hidden or protected, more than {MOST_COVERS}",
            hint="name directories instead of the files in them",
        )

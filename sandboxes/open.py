"""Open a sandbox for a spec, or say in one sentence why that cannot be had here.

The engine's SDK is an optional dependency: what needs it is imported when an engine is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePosixPath

import anyio.to_thread

from sandboxes.base import Sandbox, SandboxSpec
from sandboxes.bubblewrap.client import BubblewrapSandbox
from sandboxes.bubblewrap.handshake import MOST_COVERS
from sandboxes.bubblewrap.rootfs import mount_objection
from sandboxes.errors import SandboxUnavailable
from sandboxes.resident import Opener, Strategy

_ROOT_AND_NAME = 2
_TAKEN = frozenset(
    {
        ".remit",
        "bin",
        "boot",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "run",
        "sbin",
        "sys",
        "tmp",
    }
    | {"usr", "var"}
)


@asynccontextmanager
async def open_sandbox(spec: SandboxSpec) -> AsyncIterator[Sandbox]:
    """Open a sandbox; leaving the context kills everything inside.

    Raises:
        SandboxUnavailable: This host cannot give what the spec asks for; nothing was started.
        SandboxStartFailed: The start went wrong.
    """
    await anyio.to_thread.run_sync(check_spec, spec)
    opened = open_docker(spec) if spec.kind == "docker" else open_bubblewrap(spec)
    async with opened as sandbox:
        yield sandbox


def open_bubblewrap(
    spec: SandboxSpec, *, strategy: Strategy = "auto", opener: Opener = "openat2"
) -> BubblewrapSandbox:
    """Return an embedded sandbox to enter, with a chosen way of keeping the changes.

    ``opener`` makes file tools open paths as they do on a kernel without openat2.
    """
    return BubblewrapSandbox(spec, strategy=strategy, opener=opener)


def open_docker(
    spec: SandboxSpec, *, strategy: Strategy = "auto", opener: Opener = "openat2"
) -> AbstractAsyncContextManager[Sandbox]:
    """Return a sandbox of an engine to enter, with a chosen way of keeping the changes.

    Raises:
        SandboxUnavailable: The engine's SDK is not installed.
    """
    require_engine_sdk()
    from sandboxes.docker.sandbox import DockerSandbox

    return DockerSandbox(spec, strategy=strategy, opener=opener)


def require_engine_sdk() -> None:
    """Refuse where the engine's SDK is not installed.

    Raises:
        SandboxUnavailable: With a hint.
    """
    if find_spec("docker") is None:
        raise SandboxUnavailable(
            "the Docker SDK for Python is not installed", hint="pip install 'remit[docker]'"
        )


def check_spec(spec: SandboxSpec) -> None:
    """Refuse what no backend here enforces.

    Raises:
        SandboxUnavailable: With one sentence and a hint.
    """
    if spec.kind == "docker":
        require_engine_sdk()
        # Takes a third of a second, which belongs in this thread and not on the event loop.
        import_module("sandboxes.docker.sandbox")
    if spec.kind == "bubblewrap" and (spec.runtime is not None or spec.image is not None):
        raise SandboxUnavailable("kind bubblewrap has neither runtime nor image", hint="leave both out")
    if not spec.workspace.is_dir():
        raise SandboxUnavailable(f"workspace {spec.workspace} is no directory")
    objection = mount_objection(spec.mount) if spec.kind == "bubblewrap" else _engine_objection(spec.mount)
    if objection is not None:
        raise SandboxUnavailable(objection, hint="choose another scope.mount, such as /workspace")
    covers = len(spec.hidden) + len(spec.read_only)
    if covers > MOST_COVERS:
        raise SandboxUnavailable(
            f"{covers} paths are to be hidden or protected, more than {MOST_COVERS}",
            hint="name directories instead of the files in them",
        )


def _engine_objection(mount: str) -> str | None:
    """Return why a workspace cannot be mounted at a place of a container, or None."""
    path = PurePosixPath(mount)
    if not path.is_absolute() or str(path) != mount or ".." in path.parts or "\0" in mount or ":" in mount:
        return f"mount {mount!r} is no normalised absolute path without a colon"
    if len(path.parts) < _ROOT_AND_NAME or path.parts[1] in _TAKEN:
        return f"mount {mount!r} lies in a directory that the container needs itself"
    return None

"""What sandboxes left behind whose brokers were killed, on any backend that can leave something."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from sandboxes.base import Leftover
from sandboxes.errors import SandboxError

_USUAL_SOCKET = "/var/run/docker.sock"


def abandoned(*, remove: bool) -> tuple[Leftover, ...]:
    """Return what nobody owns any more, and remove it if asked to; nothing where no engine can be asked."""
    if find_spec("docker") is None or not _may_be_an_engine():
        return ()
    # Optional, and slow to import.
    from sandboxes.docker import reap
    from sandboxes.docker.engine import engine

    try:
        return reap.reap_now(engine()) if remove else reap.leftovers(engine())
    except SandboxError:
        return ()


def _may_be_an_engine() -> bool:
    """Whether there is an address worth asking: a name in the environment, or a socket that is there."""
    address = urlsplit(os.environ.get("DOCKER_HOST", f"unix://{_USUAL_SOCKET}"))
    return address.scheme != "unix" or Path(address.path).exists() or "DOCKER_CONTEXT" in os.environ

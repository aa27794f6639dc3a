"""The image that containers are made of, as the engine knows it. Nothing is ever pulled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import docker
import docker.errors

from sandboxes.docker.engine import Engine
from sandboxes.docker.failure import image_missing

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image by its content, and where it says that programs are.

    Attributes:
        digest: The registry's name of the same content; None for an image that was made here.
    """

    id: str
    digest: str | None
    path: str


async def find_image(engine: Engine, name: str) -> Image:
    """Return an image that the engine has.

    Raises:
        SandboxUnavailable: It does not have it.
    """
    return await engine.ask(f"look for the image {name}", lambda api: look_for_image(api, name))


def look_for_image(api: docker.APIClient, name: str) -> Image:
    """Return an image that the engine has, in this thread."""
    try:
        found = api.inspect_image(name)
    except docker.errors.ImageNotFound:
        raise image_missing(name) from None
    configured = (found.get("Config") or {}).get("Env") or ()
    paths = [entry.partition("=")[2] for entry in configured if entry.startswith("PATH=")]
    digests = found.get("RepoDigests") or ()
    return Image(id=found["Id"], digest=digests[0] if digests else None, path=paths[-1] if paths else _PATH)

"""What an overlay leaves in its work directory, where an ordinary user cannot remove it: the engine can.

The kernel makes a directory there as root, without any permission, and may leave a mark of a deletion in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors

from sandboxes.docker.config import HOSTNAME

_PLACE: Final = "/work"
_SECONDS: Final = 10
_CODE: Final = f"import shutil; shutil.rmtree({_PLACE + '/work'!r})"
_BYTES: Final = 64 * 1024 * 1024


def is_stuck(folder: Path) -> bool:
    """Whether a sandbox's directory holds what its user cannot remove."""
    work = folder / "store" / "work" / "work"
    with contextlib.suppress(OSError):
        work.rmdir()
    return work.exists()


def clear(api: docker.APIClient, folder: Path, *, image: str, labels: Mapping[str, str]) -> None:
    """Remove it by a container that sees nothing else of the host, in this thread."""
    made = api.create_container_from_config(clearing_body(folder, image=image, labels=labels), None)
    try:
        api.start(made["Id"])
        api.wait(made["Id"], timeout=_SECONDS)
    finally:
        with contextlib.suppress(docker.errors.NotFound):
            api.remove_container(made["Id"], v=True, force=True)


def clearing_body(folder: Path, *, image: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of the request: root with the one right that it takes, for one directory."""
    return {
        "Image": image,
        "User": "0:0",
        "Entrypoint": ["python3", "-I", "-S", "-c", _CODE],
        "Cmd": [],
        "Env": [],
        "Hostname": HOSTNAME,
        "Labels": dict(labels),
        "Healthcheck": {"Test": ["NONE"]},
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": ["DAC_OVERRIDE"],
            "SecurityOpt": ["no-new-privileges:true"],
            "LogConfig": {"Type": "none", "Config": {}},
            "Memory": _BYTES,
            "MemorySwap": _BYTES,
            "PidsLimit": 8,
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": str(folder / "store" / "work"),
                    "Target": _PLACE,
                    "BindOptions": {"Propagation": "rprivate"},
                }
            ],
        },
    }

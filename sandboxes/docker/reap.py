"""Remove what sandboxes left that have nobody any more: containers, volumes, directories, mounts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors

from sandboxes.base import Leftover
from sandboxes.docker.container import remove_volume
from sandboxes.docker.engine import START_SECONDS, Engine
from sandboxes.docker.ownership import SANDBOX_LABEL, Owner, is_abandoned, labels, started
from sandboxes.docker.place import OWNER_FILE, places_folder, remove_place
from sandboxes.docker.removal import settle
from sandboxes.docker.workdir import clear, is_stuck
from sandboxes.errors import SandboxError

DEFAULT_IMAGE: Final = "remit-base"
_GONE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.02
_reaped: set[tuple[int, int]] = set()


async def reap_once(engine: Engine, *, near: bool) -> None:
    """Remove leftovers, once in the life of this process for each engine."""
    key = (os.getpid(), id(engine))
    if key in _reaped:
        return
    _reaped.add(key)
    await engine.ask("remove leftovers", partial(_reap, near=near), seconds=START_SECONDS)


def leftovers(engine: Engine) -> tuple[Leftover, ...]:
    """Return what nobody owns any more, at the engine and on this host, in this thread.

    Raises:
        SandboxError: The engine cannot be asked.
    """
    return engine.ask_now("list leftovers", lambda api: tuple(_found(api)))


def reap_now(engine: Engine) -> tuple[Leftover, ...]:
    """Remove what nobody owns any more and return what there was, in this thread.

    Raises:
        SandboxError: The engine did not do it.
    """
    settle()
    near = engine.facts_now().near
    return engine.ask_now("remove leftovers", partial(_reap, near=near))


def _reap(api: docker.APIClient, *, near: bool) -> tuple[Leftover, ...]:
    found = tuple(_found(api))
    for each in found:
        if each.kind == "container":
            _remove_container(api, each.name, near=near)
        elif each.kind == "volume":
            remove_volume(api, each.name)
        else:
            _remove_folder(api, Path(each.name))
    return found


def _found(api: docker.APIClient) -> Iterator[Leftover]:
    filters = {"label": SANDBOX_LABEL}
    for container in api.containers(all=True, filters=filters):
        if is_abandoned(container.get("Labels") or {}):
            yield Leftover(kind="container", name=container["Id"])
    for volume in api.volumes(filters=filters).get("Volumes") or ():
        if is_abandoned(volume.get("Labels") or {}):
            yield Leftover(kind="volume", name=volume["Name"])
    for folder in sorted(Path(places_folder()).iterdir()):
        if _has_no_owner(folder):
            yield Leftover(kind="directory", name=str(folder))


def _remove_folder(api: docker.APIClient, folder: Path) -> None:
    if os.geteuid() != 0 and is_stuck(folder):
        try:
            clear(api, folder, image=DEFAULT_IMAGE, labels=labels(folder.name, lifetime_seconds=60))
        except docker.errors.APIError:
            # Without an image to do it with the directory stays and is told of again.
            return
    remove_place(folder)


def _has_no_owner(folder: Path) -> bool:
    try:
        owner = Owner.parse((folder / OWNER_FILE).read_text(encoding="utf-8"))
    except OSError:
        # Just being made, or half removed: its age tells.
        return time.time() - folder.lstat().st_mtime > START_SECONDS
    return owner is None or owner.is_gone()


def _remove_container(api: docker.APIClient, container_id: str, *, near: bool) -> None:
    """Remove a container and see that its first process is gone, whatever the engine says."""
    try:
        state: dict[str, Any] = api.inspect_container(container_id)["State"]
    except docker.errors.NotFound:
        return
    pid = int(state.get("Pid") or 0)
    since = started(pid) if near and pid else None
    try:
        api.remove_container(container_id, v=True, force=True)
    except docker.errors.NotFound:
        return
    deadline = time.monotonic() + _GONE_SECONDS
    while since is not None and started(pid) == since:
        if time.monotonic() > deadline:
            raise SandboxError(f"process {pid} of the removed container {container_id[:12]} lives on")
        time.sleep(_LOOK_SECONDS)

"""Bring a container up and its guest to answer, and describe what it is made of."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from sandboxes.base import Control, SandboxIdentity, SandboxSpec, WorkspaceStrategy
from sandboxes.docker.config import Copied, Plan, create_body
from sandboxes.docker.container import Container
from sandboxes.docker.controls import controls, missing_controls, observe
from sandboxes.docker.engine import Engine, EngineFacts
from sandboxes.docker.handshake import LIFETIME_SECONDS, accept, greet, guest_settings, listen
from sandboxes.docker.image import Image, find_image
from sandboxes.docker.ownership import labels
from sandboxes.docker.place import Place
from sandboxes.docker.program import guest_program
from sandboxes.docker.reap import DEFAULT_IMAGE, reap_once
from sandboxes.docker.relay import Relay
from sandboxes.errors import SandboxError, SandboxIntegrity, SandboxUnavailable

DEFAULT_RUNTIME: Final = "runc"
_EXPLAIN_SECONDS: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a start stands on: an engine that can be used, and an image that it has."""

    facts: EngineFacts
    image: Image
    runtime: str
    near: bool


@dataclass(kw_only=True, slots=True)
class Launched:
    """What a start has brought into being so far; whoever asked for it takes it away again."""

    place: Place | None = None
    container: Container | None = None
    relay: Relay | None = None
    connection: socket.socket | None = None
    image: str | None = None
    shell: str = "/bin/sh"


async def find_ground(engine: Engine, spec: SandboxSpec) -> Ground:
    """Find out whether the engine can run a spec, and clear away what dead brokers left there.

    Raises:
        SandboxUnavailable: It cannot.
    """
    facts = await engine.facts()
    near = facts.near and not engine.is_distant
    await reap_once(engine, near=near)
    runtime = spec.runtime or DEFAULT_RUNTIME
    if runtime not in facts.runtimes:
        raise SandboxUnavailable(
            f"the engine has no runtime {runtime!r}, but {', '.join(facts.runtimes)}",
            hint="install it and name it in the engine's configuration, or leave runtime out",
        )
    if not near and runtime != DEFAULT_RUNTIME and (spec.hidden or spec.read_only):
        raise SandboxUnavailable(
            f"{runtime} on an engine that does not share this host's directories cannot protect paths",
            hint="use runtime: runc there, or an engine on this host",
        )
    image = await find_image(engine, spec.image or DEFAULT_IMAGE)
    return Ground(facts=facts, image=image, runtime=runtime, near=near)


def make_plan(
    sandbox: str, spec: SandboxSpec, ground: Ground, place: Place, copied: Copied | None = None
) -> Plan:
    """Return the container to make; gVisor lets no socket of the host through: there it is the stream."""
    by_stream = ground.runtime != DEFAULT_RUNTIME or copied is not None
    return Plan(
        name=f"remit-{sandbox}",
        image=ground.image.id,
        runtime=ground.runtime,
        code=guest_program().code,
        mount=spec.mount,
        uid=place.uid,
        gid=place.gid,
        limits=spec.limits,
        overlay=None if copied else place.overlay(volume_name(sandbox)),
        copied=copied,
        binds=() if copied else place.binds(with_socket=not by_stream),
        labels=labels(sandbox, lifetime_seconds=LIFETIME_SECONDS),
        by_stream=by_stream,
    )


def volume_name(sandbox: str) -> str:
    """Return the name of a sandbox's workspace at the engine."""
    return f"remit-{sandbox}"


async def start(engine: Engine, plan: Plan, launched: Launched) -> socket.socket:
    """Make and start the container and return the connection to its guest."""
    place = launched.place
    listener = None
    if not plan.by_stream and place is not None:
        listener = await anyio.to_thread.run_sync(listen, place.socket_path)
    try:
        container = launched.container = await Container.create(engine, create_body(plan), name=plan.name)
        if listener is None:
            launched.relay = Relay(await container.attach())
        await container.start()
    except BaseException:
        if listener is not None:
            listener.close()
        raise
    if listener is None or place is None:
        connection = launched.connection = _opened(launched.relay).connection
        connection.setblocking(False)
        return connection
    connection, caller = await accept(listener, place=place.socket_path, complaint=container.complaint)
    launched.connection = connection
    if not await anyio.to_thread.run_sync(container.hold, caller):
        raise SandboxIntegrity("the first call does not come from the container")
    return connection


async def welcome(launched: Launched, spec: SandboxSpec, plan: Plan, *, opener: str) -> tuple[Control, ...]:
    """Give the guest its settings and return what isolates it, as seen from outside.

    Raises:
        SandboxUnavailable: A required control does not hold.
    """
    container, connection = _opened(launched.container), launched.connection
    if connection is None:
        raise SandboxError("the container has no connection")
    settings = guest_settings(spec, uid=plan.uid, gid=plan.gid, strategy=_strategy(plan), opener=opener)
    try:
        launched.shell = await greet(connection, settings, program=guest_program())
    except SandboxIntegrity:
        raise
    except SandboxError as error:
        raise await _explain(launched, error) from None
    inspected = await container.inspect()
    if container.pid is None and plan.copied is None:
        await anyio.to_thread.run_sync(container.hold, int(inspected["State"]["Pid"]))
    sighting = await anyio.to_thread.run_sync(observe, container.pid) if container.pid else None
    found = await anyio.to_thread.run_sync(controls, spec, plan, inspected, sighting)
    missing = missing_controls(found)
    if missing:
        raise SandboxUnavailable(f"a required control does not hold in the container: {missing}")
    return found


def describe(
    sandbox: str, spec: SandboxSpec, ground: Ground, place: Place, plan: Plan, *, shell: str
) -> SandboxIdentity:
    """Return what a sandbox is made of."""
    return SandboxIdentity(
        id=sandbox,
        backend="docker",
        backend_version=ground.facts.version,
        guest_digest=guest_program().digest,
        strategy=_strategy(plan),
        shell=shell,
        holds_snapshot=plan.copied is not None or place.lower == "copied",
        details={
            "kernel": ground.facts.kernel,
            "machine": platform.machine(),
            "runtime": plan.runtime,
            "image": spec.image or DEFAULT_IMAGE,
            "image_id": ground.image.id,
            "image_digest": ground.image.digest or "none",
            "cgroup_version": ground.facts.cgroup_version,
            "host_uid": str(plan.uid),
            "lower": "sent" if plan.copied else place.lower,
            "disk_limit": "exact" if plan.copied or os.geteuid() == 0 else "watched every 100 ms",
            "channel": "stream" if plan.by_stream else "socket",
        },
    )


def _strategy(plan: Plan) -> WorkspaceStrategy:
    return "copy" if plan.copied else "overlay"


def give_up(launched: Launched) -> Callable[[], str | None]:
    """Return what kills at once whatever can be killed without the engine, and tells what was printed."""

    def kill() -> str | None:
        if launched.container is not None:
            launched.container.kill_now()
        if launched.relay is None:
            return None
        launched.relay.close()
        said = launched.relay.said()
        return f"the container printed: {said[-300:]}" if said else None

    return kill


async def _explain(launched: Launched, error: SandboxError) -> SandboxError:
    """Add to a failed start what is known of the container."""
    with anyio.move_on_after(_EXPLAIN_SECONDS):
        complaint = await _opened(launched.container).complaint()
        if isinstance(complaint, SandboxError):
            said = launched.relay.said() if launched.relay else ""
            complaint.hint = said or str(error)
            return complaint
    return error


def _opened(value: T | None) -> T:
    if value is None:
        raise SandboxError("the container is not there")
    return value

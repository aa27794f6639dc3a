"""The sandbox as a broker uses it: a container that lives as long as it, and the calls to its guest."""

from __future__ import annotations

import os
import secrets
import socket
import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import anyio
import anyio.to_thread

from sandboxes import wire
from sandboxes.base import (
    Control,
    ExecRequest,
    ExecResult,
    FileContent,
    FileProblem,
    FileRemoved,
    FileWritten,
    Layer,
    Listing,
    SandboxIdentity,
    SandboxSpec,
    WorkspaceStrategy,
)
from sandboxes.bubblewrap.channel import Channel
from sandboxes.calls import GuestCalls
from sandboxes.docker.config import Plan, create_body
from sandboxes.docker.container import Container, remove_volume
from sandboxes.docker.controls import controls, missing_controls, observe
from sandboxes.docker.engine import Engine, EngineFacts, engine
from sandboxes.docker.failure import PlaceUnseen
from sandboxes.docker.handshake import LIFETIME_SECONDS, accept, greet, guest_settings, listen
from sandboxes.docker.image import Image, find_image
from sandboxes.docker.ownership import labels
from sandboxes.docker.place import Place
from sandboxes.docker.program import guest_program
from sandboxes.docker.reap import reap_once
from sandboxes.docker.relay import Relay
from sandboxes.docker.remote import CopiedTree
from sandboxes.errors import EngineUnresponsive, SandboxError, SandboxIntegrity, SandboxUnavailable

DEFAULT_IMAGE: Final = "remit-base"
DEFAULT_RUNTIME: Final = "runc"

_HOME: Final = "/tmp/home"  # noqa: S108
_EXIT_SECONDS: Final = 5.0
_REMOVE_SECONDS: Final = 8.0

T = TypeVar("T")
Strategy = Literal["auto", "overlay", "copy"]
Opener = Literal["openat2", "walk"]


class DockerSandbox:
    """One container with a resident guest."""

    def __init__(self, spec: SandboxSpec, *, strategy: Strategy = "auto", opener: Opener = "openat2") -> None:
        self._spec = spec
        self._wanted: Strategy = strategy
        self._opener: Opener = opener
        self._id = secrets.token_hex(8)
        self._engine: Engine = engine()
        self._place: Place | None = None
        self._copied: CopiedTree | None = None
        self._container: Container | None = None
        self._relay: Relay | None = None
        self._calls: GuestCalls | None = None
        self._controls: tuple[Control, ...] = ()
        self._layer: Layer | None = None
        self._identity: SandboxIdentity | None = None
        self._ending = anyio.Lock()
        self._ended = False

    @property
    def identity(self) -> SandboxIdentity:
        """What this sandbox is made of."""
        return _opened(self._identity)

    @property
    def controls(self) -> tuple[Control, ...]:
        """What isolates this sandbox, as configured and as seen from outside when it was opened."""
        return self._controls

    @property
    def layer(self) -> Layer:
        """The changes so far."""
        return _opened(self._layer)

    @property
    def guest_pid(self) -> int | None:
        """The guest's pid on this host, where the engine is on it."""
        return None if self._container is None else self._container.pid

    @property
    def container_id(self) -> str | None:
        """The container's id at the engine."""
        return None if self._container is None else self._container.id

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run one command to its end."""
        result = await _opened(self._calls).exec(request)
        return self._with_the_hosts_view(result)

    def _with_the_hosts_view(self, result: ExecResult) -> ExecResult:
        """Name the limit on files for a runtime that does not show it inside."""
        failed = result.limit is None and result.exit_code != 0
        if self._place is None or not failed or os.fstatvfs(self._place.upper_fd).f_ffree:
            return result
        return replace(result, limit="inodes", exit_code=None, signal=None)

    async def exec_last(self, request: ExecRequest) -> ExecResult:
        """Run one command and end the container with its exit status, as the engine observed it."""
        result = await _opened(self._calls).exec(request, last=True)
        if wire.unsendable_result(request) is None:
            status = await _opened(self._container).exit_status(timeout_seconds=_EXIT_SECONDS)
            claimed = result.exit_code if result.exit_code is not None else 128 + (result.signal or 9)
            if status != claimed:
                await self.aclose()
                raise SandboxIntegrity(f"guest claims the exit status {claimed}, the engine observed {status}")
        await self.aclose()
        return result

    async def read_file(self, path: str, *, offset: int = 0, max_bytes: int) -> FileContent | FileProblem:
        """Read a regular file, following no link."""
        return await _opened(self._calls).read_file(path, offset=offset, max_bytes=max_bytes)

    async def write_file(
        self,
        path: str,
        data: bytes,
        *,
        mode: int | None = None,
        create_parents: bool = True,
        must_not_exist: bool = False,
        expected_sha256: str | None = None,
    ) -> FileWritten | FileProblem:
        """Put ``data`` in place by a temporary file and a rename."""
        return await _opened(self._calls).write_file(
            path,
            data,
            mode=mode,
            create_parents=create_parents,
            must_not_exist=must_not_exist,
            expected_sha256=expected_sha256,
        )

    async def remove(self, path: str) -> FileRemoved | FileProblem:
        """Remove a file, a link or an empty directory."""
        return await _opened(self._calls).remove(path)

    async def make_directory(self, path: str, *, mode: int = 0o755) -> FileWritten | FileProblem:
        """Make one directory; an existing one only gets ``mode``."""
        return await _opened(self._calls).make_directory(path, mode=mode)

    async def make_symlink(self, path: str, *, target: str) -> FileWritten | FileProblem:
        """Make a symbolic link that holds ``target`` unresolved."""
        return await _opened(self._calls).make_symlink(path, target=target)

    async def list_directory(
        self, path: str, *, recursive: bool = False, max_entries: int = 1000
    ) -> Listing | FileProblem:
        """List a directory, following no link."""
        return await _opened(self._calls).list_directory(path, recursive=recursive, max_entries=max_entries)

    async def used_bytes(self) -> int:
        """Bytes that the workspace's changes occupy now."""
        return await _opened(self._calls).used_bytes()

    async def ping(self) -> None:
        """Have the guest answer."""
        await _opened(self._calls).ping()

    async def aclose(self) -> None:
        """Kill everything inside, wait until it is gone, and remove what the engine has of it."""
        with anyio.CancelScope(shield=True):
            async with self._ending:
                if not self._ended:
                    self._ended = True
                    with anyio.move_on_after(_REMOVE_SECONDS):
                        await self._end()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except PlaceUnseen:
            await self._start_over_with_a_copy()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _start_over_with_a_copy(self) -> None:
        await self.aclose()
        if self._wanted == "overlay":
            raise SandboxUnavailable("the engine cannot mount an overlay of this host's directories")
        self._wanted, self._ended = "copy", False
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise

    async def _open(self) -> None:
        facts = await self._engine.facts()
        await reap_once(self._engine, near=facts.near)
        runtime = self._spec.runtime or DEFAULT_RUNTIME
        if runtime not in facts.runtimes:
            raise SandboxUnavailable(
                f"the engine has no runtime {runtime!r}, but {', '.join(facts.runtimes)}",
                hint="install it and name it in the engine's configuration, or leave runtime out",
            )
        image = await find_image(self._engine, self._spec.image or DEFAULT_IMAGE)
        overlay = facts.near and self._wanted != "copy"
        if overlay:
            await self._open_near(facts, image, runtime)
        else:
            await self._open_copied(facts, image, runtime)

    async def _open_near(self, facts: EngineFacts, image: Image, runtime: str) -> None:
        """Start over layers of this host, which the engine mounts."""
        place = self._place = Place(self._id, self._spec)
        await anyio.to_thread.run_sync(place.build)
        self._keep_layer(place)
        by_stream = runtime != DEFAULT_RUNTIME
        plan = self._plan(
            image,
            runtime,
            place.uid,
            place.gid,
            overlay=place.overlay(self._volume),
            binds=await anyio.to_thread.run_sync(partial(place.binds, with_socket=not by_stream)),
            by_stream=by_stream,
        )
        connection = await self._start(plan, place)
        await self._settle(connection, plan, facts, image, strategy="overlay", lower=place.lower)
        await anyio.to_thread.run_sync(place.release)

    async def _open_copied(self, facts: EngineFacts, image: Image, runtime: str) -> None:
        """Start with an empty workspace in the container's memory, and copy the tree into it."""
        copied = self._copied = CopiedTree(self._spec)
        plan = self._plan(image, runtime, copied.uid, copied.gid, overlay=None, binds=(), by_stream=True)
        connection = await self._start(plan, None)
        await self._settle(connection, plan, facts, image, strategy="copy", lower="copied")
        self._layer = await copied.fill(_opened(self._calls))

    def _keep_layer(self, place: Place) -> None:
        self._layer = Layer(upper_fd=place.upper_fd, lower=self._spec.workspace, strategy="overlay")
        weakref.finalize(self, place.forget)

    def _plan(self, image: Image, runtime: str, uid: int, gid: int, **details: Any) -> Plan:
        return Plan(
            name=f"remit-{self._id}",
            image=image.id,
            runtime=runtime,
            code=guest_program().code,
            mount=self._spec.mount,
            uid=uid,
            gid=gid,
            limits=self._spec.limits,
            labels=labels(self._id, lifetime_seconds=LIFETIME_SECONDS),
            **details,
        )

    @property
    def _volume(self) -> str:
        return f"remit-{self._id}"

    async def _start(self, plan: Plan, place: Place | None) -> socket.socket:
        """Make and start the container and return the connection to its guest."""
        listener = None
        if not plan.by_stream and place is not None:
            listener = listen(place.socket_path)
        try:
            container = self._container = await Container.create(
                self._engine, create_body(plan), name=plan.name
            )
            if listener is None:
                self._relay = Relay(await container.attach())
            await container.start()
        except BaseException:
            if listener is not None:
                listener.close()
            raise
        if listener is None or place is None:
            connection = _opened(self._relay).connection
            connection.setblocking(False)
            return connection
        connection, caller = await accept(listener, place=place.socket_path, complaint=container.complaint)
        if not container.hold(caller):
            connection.close()
            raise SandboxIntegrity("the first call does not come from the container")
        return connection

    async def _settle(
        self,
        connection: socket.socket,
        plan: Plan,
        facts: EngineFacts,
        image: Image,
        *,
        strategy: WorkspaceStrategy,
        lower: str,
    ) -> None:
        container = _opened(self._container)
        settings = guest_settings(
            self._spec, uid=plan.uid, gid=plan.gid, strategy=strategy, opener=self._opener
        )
        try:
            await greet(connection, settings)
        except BaseException as error:
            connection.close()
            if isinstance(error, SandboxError) and not isinstance(error, SandboxIntegrity):
                raise await self._explain(error) from None
            raise
        self._calls = GuestCalls(
            Channel(connection, on_broken=self._give_up), environment=self._environment(image)
        )
        inspected = await container.inspect()
        if container.pid is None and facts.near:
            container.hold(inspected["State"]["Pid"])
        sighting = await anyio.to_thread.run_sync(observe, container.pid) if container.pid else None
        self._controls = controls(self._spec, plan, inspected, sighting)
        self._identity = self._describe(plan, facts, image, strategy=strategy, lower=lower)
        missing = missing_controls(self._controls)
        if missing:
            raise SandboxUnavailable(f"a required control does not hold in the container: {missing}")

    async def _explain(self, error: SandboxError) -> SandboxError:
        """Add to a failed start what is known of the container."""
        with anyio.move_on_after(1):
            complaint = await _opened(self._container).complaint()
            said = self._relay.said() if self._relay else ""
            if isinstance(complaint, SandboxError):
                complaint.hint = said or error.hint or str(error)
                return complaint
        return error

    def _environment(self, image: Image) -> Mapping[str, str]:
        return {"PATH": image.path, "HOME": _HOME, "LANG": "C.UTF-8", **self._spec.environment}

    def _describe(
        self, plan: Plan, facts: EngineFacts, image: Image, *, strategy: WorkspaceStrategy, lower: str
    ) -> SandboxIdentity:
        exact = strategy == "copy" or os.geteuid() == 0
        return SandboxIdentity(
            id=self._id,
            backend="docker",
            backend_version=facts.version,
            guest_digest=guest_program().digest,
            strategy=strategy,
            details={
                "kernel": facts.kernel,
                "runtime": plan.runtime,
                "image": self._spec.image or DEFAULT_IMAGE,
                "image_id": image.id,
                "image_digest": image.digest or "none",
                "cgroup_version": facts.cgroup_version,
                "host_uid": str(plan.uid),
                "lower": lower,
                "disk_limit": "exact" if exact else "watched",
                "channel": "stream" if plan.by_stream else "socket",
                "engine": "this host" if facts.near else "another host or user namespace",
            },
        )

    def _give_up(self) -> str | None:
        """Kill what can be killed at once; the rest goes when the sandbox is closed."""
        if self._container is not None:
            self._container.kill_now()
        if self._relay is not None:
            self._relay.close()
            said = self._relay.said()
            return f"the container printed: {said[-300:]}" if said else None
        return None

    async def _end(self) -> None:
        if self._copied is not None and self._calls is not None:
            await self._copied.take_back(self._calls)
        if self._calls is not None:
            self._calls.close()
        if self._relay is not None:
            self._relay.close()
            self._relay.connection.close()
        try:
            await self._remove()
        except (SandboxError, TimeoutError):
            # An engine that is gone or hangs: the next broker removes what it has of this one.
            return
        finally:
            if self._place is not None:
                await anyio.to_thread.run_sync(self._place.remove)

    async def _remove(self) -> None:
        container = self._container
        if container is None:
            return
        container.kill_now()
        try:
            await container.wait_until_gone()
            await container.remove()
        except EngineUnresponsive:
            await container.wait_until_gone()
            raise
        finally:
            container.close()
        if self._place is not None:
            await self._engine.ask("remove a volume", lambda api: remove_volume(api, self._volume))


def _opened(value: T | None) -> T:
    if value is None:
        raise SandboxError("the sandbox is not open")
    return value

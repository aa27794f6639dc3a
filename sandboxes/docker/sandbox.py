"""A container of an engine that lives as long as its sandbox."""

from __future__ import annotations

import hashlib
import os
import secrets
import weakref
from dataclasses import replace
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from sandboxes.base import ExecRequest, ExecResult, FileProblem, FileWritten, Layer, SandboxSpec
from sandboxes.channel import Channel
from sandboxes.docker import disk
from sandboxes.docker.engine import Engine, engine
from sandboxes.docker.launch import (
    Launched,
    describe,
    find_ground,
    give_up,
    make_plan,
    start,
    volume_name,
    welcome,
)
from sandboxes.docker.place import build_place
from sandboxes.docker.removal import remover
from sandboxes.errors import SandboxError, SandboxUnavailable
from sandboxes.resident import HOME, Opener, ResidentSandbox, Strategy, opened

_REMOVE_SECONDS: Final = 8.0


class DockerSandbox(ResidentSandbox):
    """One container with a resident guest."""

    def __init__(self, spec: SandboxSpec, *, strategy: Strategy = "auto", opener: Opener = "openat2") -> None:
        super().__init__(spec)
        if strategy == "copy":
            raise SandboxUnavailable("an engine's sandbox has no copy of the workspace, only an overlay")
        self._opener: Opener = opener
        self._id = secrets.token_hex(8)
        self._engine: Engine | None = None
        self._launched = Launched()
        self._ending = anyio.Lock()
        self._ended = False

    @property
    def guest_pid(self) -> int | None:
        """The guest's pid on this host, where the engine is on it."""
        return None if self._launched.container is None else self._launched.container.pid

    @property
    def container_id(self) -> str | None:
        """The container's id at the engine."""
        return None if self._launched.container is None else self._launched.container.id

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run one command to its end."""
        if os.geteuid() != 0:
            return await self._run_watched(request)
        return self._with_the_hosts_view(await super().exec(request))

    async def write_file(
        self,
        path: str,
        data: bytes,
        *,
        mode: int | None = None,
        create_parents: bool = True,
        must_not_exist: bool = False,
        expected_sha256: str | None = None,
        modified_ns: int | None = None,
    ) -> FileWritten | FileProblem:
        """Put ``data`` in place by a temporary file and a rename."""
        if os.geteuid() != 0 and len(data) + await self.used_bytes() > self._spec.limits.disk_bytes:
            return FileProblem(kind="no_space", path=path, detail="the changes may not take more room")
        return await super().write_file(
            path,
            data,
            mode=mode,
            create_parents=create_parents,
            must_not_exist=must_not_exist,
            expected_sha256=expected_sha256,
            modified_ns=modified_ns,
        )

    async def used_bytes(self) -> int:
        """Bytes that the workspace's changes occupy now."""
        if os.geteuid() != 0:
            return (await anyio.to_thread.run_sync(disk.usage, self.layer.upper_fd))[0]
        return await super().used_bytes()

    async def aclose(self) -> None:
        """Kill everything inside and see that it is dead; the engine removes the rest in the background."""
        with anyio.CancelScope(shield=True):
            async with self._ending:
                if not self._ended:
                    self._ended = True
                    with anyio.move_on_after(_REMOVE_SECONDS):
                        await self._end()

    async def _open(self) -> None:
        launched = self._launched
        asked = self._engine = await anyio.to_thread.run_sync(engine)
        ground = await find_ground(asked, self._spec)
        place = launched.place = await anyio.to_thread.run_sync(build_place, self._id, self._spec)
        self._layer = Layer(upper_fd=place.upper_fd, lower=self._spec.workspace, strategy="overlay")
        weakref.finalize(self, place.forget)
        plan = await anyio.to_thread.run_sync(make_plan, self._id, self._spec, ground, place)
        connection = await start(asked, plan, launched)
        self._controls = await welcome(launched, self._spec, plan, opener=self._opener)
        self._identity = describe(self._id, self._spec, ground, place, plan)
        self._environment = {
            "PATH": ground.image.path,
            "HOME": HOME,
            "LANG": "C.UTF-8",
            **self._spec.environment,
        }
        self._channel = Channel(connection, on_broken=give_up(launched))
        await anyio.to_thread.run_sync(place.release)

    async def _exit_status(self, *, timeout_seconds: float) -> int | None:
        return await opened(self._launched.container).exit_status(timeout_seconds=timeout_seconds)

    def _with_the_hosts_view(self, result: ExecResult) -> ExecResult:
        """Name the limit on files for a runtime that does not show it inside."""
        failed = result.limit is None and result.exit_code != 0
        if not failed or disk.free_files(self.layer.upper_fd):
            return result
        return replace(result, limit="inodes", exit_code=None, signal=None)

    async def _run_watched(self, request: ExecRequest) -> ExecResult:
        """Run a command that is stopped when the changes outgrow their limit on an ordinary disk."""
        passed: list[disk.DiskLimit] = []
        result: ExecResult | None = None
        failure: SandboxError | None = None
        before = await anyio.to_thread.run_sync(disk.usage, self.layer.upper_fd)
        async with anyio.create_task_group() as tasks:

            def stop(limit: disk.DiskLimit) -> None:
                passed.append(limit)
                tasks.cancel_scope.cancel()

            tasks.start_soon(partial(disk.watch, before=before), self.layer.upper_fd, self._spec.limits, stop)
            try:
                result = await super().exec(request)
            except SandboxError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if result is None:
            return _stopped(passed[0] if passed else "disk")
        limit = await anyio.to_thread.run_sync(
            partial(disk.limit_reached, before=before), self.layer.upper_fd, self._spec.limits
        )
        if limit is None or result.limit not in (None, "size"):
            return result
        return replace(result, limit=limit, exit_code=None, signal=None)

    async def _end(self) -> None:
        launched = self._launched
        if self._channel is not None:
            self._channel.close()
        elif launched.connection is not None:
            launched.connection.close()
        if launched.relay is not None:
            launched.relay.close()
        if launched.container is None:
            await anyio.to_thread.run_sync(self._remove)
            return
        try:
            await launched.container.end()
        except SandboxError:
            # An engine that is gone or hangs: what it has of this sandbox is removed later.
            return
        finally:
            launched.container.close()
            remover().submit(self._remove)

    def _remove(self) -> None:
        """Take away what is left of a sandbox in which nothing lives.

        Raises:
            SandboxError: The engine did not do its part.
        """
        try:
            if self._launched.container is not None:
                self._launched.container.remove_now(volume=volume_name(self._id))
        finally:
            if self._launched.place is not None:
                self._launched.place.remove()


def _stopped(limit: disk.DiskLimit) -> ExecResult:
    """Return how a command ended that was stopped for what it wrote; its output went with it."""
    return ExecResult(
        exit_code=None,
        signal=None,
        limit=limit,
        output=b"",
        output_bytes=0,
        output_sha256=hashlib.sha256().hexdigest(),
        truncated=False,
        wall_seconds=0.0,
        cpu_seconds=0.0,
        peak_memory_bytes=0,
        written_bytes=0,
    )

"""A container of an engine that lives as long as its sandbox."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import weakref
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from sandboxes.base import (
    ExecRequest,
    ExecResult,
    FileProblem,
    FileRemoved,
    FileWritten,
    Layer,
    SandboxSpec,
)
from sandboxes.channel import Channel
from sandboxes.docker import disk, workdir
from sandboxes.docker.config import Plan
from sandboxes.docker.container import remove_volume
from sandboxes.docker.copied import CopiedTree
from sandboxes.docker.engine import Engine, engine
from sandboxes.docker.failure import PlaceUnseen
from sandboxes.docker.handshake import LIFETIME_SECONDS
from sandboxes.docker.launch import (
    Ground,
    Launched,
    describe,
    find_ground,
    give_up,
    make_plan,
    start,
    volume_name,
    welcome,
)
from sandboxes.docker.ownership import labels
from sandboxes.docker.place import Place, build_place
from sandboxes.docker.removal import remover, settle
from sandboxes.errors import SandboxError, SandboxUnavailable, SandboxUnresponsive
from sandboxes.resident import HOME, Opener, ResidentSandbox, Strategy, opened

T = TypeVar("T")

_END_SECONDS: Final = 8.0


class DockerSandbox(ResidentSandbox):
    """One container with a resident guest."""

    def __init__(self, spec: SandboxSpec, *, strategy: Strategy = "auto", opener: Opener = "openat2") -> None:
        super().__init__(spec)
        self._strategy: Strategy = strategy
        self._opener: Opener = opener
        self._id = secrets.token_hex(8)
        self._engine: Engine | None = None
        self._launched = Launched()
        self._copied: CopiedTree | None = None
        self._used_at_start = 0
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
        if self._copied is not None:
            async with self._copied.command():
                result = await super().exec(request)
            await self._copied.bring()
            return result
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
        if (
            self._copied is None
            and os.geteuid() != 0
            and len(data) + await self.used_bytes() > self._spec.limits.disk_bytes
        ):
            return FileProblem(kind="no_space", path=path, detail="the changes may not take more room")
        answer = await super().write_file(
            path,
            data,
            mode=mode,
            create_parents=create_parents,
            must_not_exist=must_not_exist,
            expected_sha256=expected_sha256,
            modified_ns=modified_ns,
        )
        return await self._brought(answer)

    async def remove(self, path: str) -> FileRemoved | FileProblem:
        """Remove a file, a link or an empty directory."""
        return await self._brought(await super().remove(path))

    async def make_directory(self, path: str, *, mode: int = 0o755) -> FileWritten | FileProblem:
        """Make one directory; an existing one only gets ``mode``."""
        return await self._brought(await super().make_directory(path, mode=mode))

    async def make_symlink(self, path: str, *, target: str) -> FileWritten | FileProblem:
        """Make a symbolic link that holds ``target`` unresolved."""
        return await self._brought(await super().make_symlink(path, target=target))

    async def used_bytes(self) -> int:
        """Bytes that the workspace's changes occupy now."""
        if self._copied is not None:
            return max(0, await super().used_bytes() - self._used_at_start)
        if os.geteuid() != 0:
            return (await anyio.to_thread.run_sync(disk.usage, self.layer.upper_fd))[0]
        return await super().used_bytes()

    async def aclose(self) -> None:
        """Kill everything inside and see that it is dead; the engine removes the rest in the background.

        Raises:
            SandboxUnresponsive: It was not seen to end, so its changes are not final.
        """
        with anyio.CancelScope(shield=True):
            async with self._ending:
                if not self._ended:
                    self._ended = True
                    with anyio.move_on_after(_END_SECONDS) as limit:
                        await self._end()
                    if limit.cancelled_caught:
                        raise SandboxUnresponsive("the container was not seen to end")

    @property
    def layer(self) -> Layer:
        """The changes so far."""
        return super().layer if self._copied is None else self._copied.layer

    async def _open(self) -> None:
        asked = self._engine = await anyio.to_thread.run_sync(engine)
        ground = await find_ground(asked, self._spec)
        if ground.near and self._strategy != "copy" and await self._is_near(asked, ground):
            return
        if self._strategy == "overlay":
            raise SandboxUnavailable("the engine does not share this host's directories: it has no overlay")
        await self._open_distant(asked, ground)

    async def _is_near(self, asked: Engine, ground: Ground) -> bool:
        """Open it as on an engine of this host; False when that finds no directory that is here."""
        try:
            await self._open_near(asked, ground)
        except PlaceUnseen:
            if self._strategy == "overlay":
                raise
            asked.is_distant = True
            await self._end()
            # What was begun is removed in the background; the copy has names of its own.
            self._id, self._launched = secrets.token_hex(8), Launched()
            return False
        return True

    async def _open_near(self, asked: Engine, ground: Ground) -> None:
        launched = self._launched
        place = launched.place = await anyio.to_thread.run_sync(build_place, self._id, self._spec)
        self._layer = Layer(upper_fd=place.upper_fd, lower=self._spec.workspace, strategy="overlay")
        weakref.finalize(self, _forget_in_a_thread, place)
        plan = await anyio.to_thread.run_sync(make_plan, self._id, self._spec, ground, place)
        launched.image = plan.image
        await self._start(asked, ground, place, plan)
        await anyio.to_thread.run_sync(place.release)

    async def _open_distant(self, asked: Engine, ground: Ground) -> None:
        build = partial(build_place, shared=False)
        place = self._launched.place = await anyio.to_thread.run_sync(build, self._id, self._spec)
        weakref.finalize(self, _forget_in_a_thread, place)
        tree = self._copied = await anyio.to_thread.run_sync(CopiedTree, self._spec, place)
        weakref.finalize(self, tree.let_go_of_states)
        await anyio.to_thread.run_sync(tree.load)
        owned = not any("name=userns" in option for option in ground.facts.security)
        name = volume_name(self._id)
        volume = await anyio.to_thread.run_sync(partial(tree.volume, name, owned=owned))
        plan = await anyio.to_thread.run_sync(make_plan, self._id, self._spec, ground, place, volume)
        await tree.send(asked, plan)
        await self._start(asked, ground, place, plan)
        self._used_at_start = await super().used_bytes()

    async def _start(self, asked: Engine, ground: Ground, place: Place, plan: Plan) -> None:
        launched = self._launched
        connection = await start(asked, plan, launched)
        self._controls = await welcome(launched, self._spec, plan, opener=self._opener)
        self._identity = describe(self._id, self._spec, ground, place, plan, shell=launched.shell)
        self._environment = {
            "PATH": ground.image.path,
            "HOME": HOME,
            "LANG": "C.UTF-8",
            **self._spec.environment,
        }
        self._channel = Channel(connection, on_broken=give_up(launched))

    async def _brought(self, answer: T) -> T:
        """Return the answer once what it says is here as well."""
        if self._copied is not None and not isinstance(answer, FileProblem):
            await self._copied.bring()
        return answer

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
        try:
            if launched.container is not None:
                await launched.container.end()
            if self._copied is not None and self._identity is not None:
                # The last changes, now that nothing lives that could make some.
                await self._copied.bring()
        except SandboxUnresponsive:
            raise
        except SandboxError:
            # An engine that is gone or hangs: what it has of this sandbox is removed later.
            return
        finally:
            if launched.container is not None:
                launched.container.close()
            if self._copied is not None:
                self._copied.let_go()
            remover().submit(partial(_remove, self._id, self._engine, launched, self._copied))


def _remove(sandbox: str, engine: Engine | None, launched: Launched, copied: CopiedTree | None) -> None:
    """Take away what is left of a sandbox in which nothing lives, in this thread.

    Raises:
        SandboxError: The engine did not do its part.
    """
    try:
        if engine is None:
            return
        if launched.container is not None:
            launched.container.remove_now()
        if copied is not None:
            copied.remove_now()
        if launched.container is not None or copied is not None:
            engine.ask_now("remove a volume", lambda api: remove_volume(api, volume_name(sandbox)))
        _clear_work(sandbox, engine, launched)
    finally:
        if launched.place is not None:
            launched.place.remove()


def _clear_work(sandbox: str, engine: Engine, launched: Launched) -> None:
    """Have the engine remove what an ordinary user's overlay left as root."""
    place, image = launched.place, launched.image
    if place is None or image is None or os.geteuid() == 0 or not workdir.is_stuck(place.folder):
        return
    marks = labels(sandbox, lifetime_seconds=LIFETIME_SECONDS)
    engine.ask_now(
        "clear a work directory", lambda api: workdir.clear(api, place.folder, image=image, labels=marks)
    )


def _forget_in_a_thread(place: Place) -> None:
    """Remove what may be many files from wherever the last reference went, perhaps on the event loop."""
    try:
        threading.Thread(target=_forget, args=(place,), name="remit-forget").start()
    except RuntimeError:
        # At the end of the interpreter there are no new threads, and no event loop either.
        place.forget()


def _forget(place: Place) -> None:
    # What only the engine can remove from it goes first.
    settle()
    place.forget()


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

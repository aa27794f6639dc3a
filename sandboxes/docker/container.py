"""One container at the engine: made, started, looked at, removed, and known to be gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any, Final

import anyio
import anyio.to_thread
import docker
import docker.errors

from sandboxes.docker.engine import START_SECONDS, Engine
from sandboxes.errors import SandboxStartFailed, SandboxUnresponsive

_KILL_SECONDS: Final = 2.0
_GONE_SECONDS: Final = 2.0
_CONFLICT: Final = 409


class Container:
    """A container by its id; ``pid`` is its first process on this host, once that is known."""

    def __init__(self, engine: Engine, container_id: str) -> None:
        self._engine = engine
        self.id = container_id
        self.pid: int | None = None
        self._pidfd = -1

    @classmethod
    async def create(cls, engine: Engine, body: dict[str, Any], *, name: str) -> Container:
        """Make a container, without starting it."""
        made = await engine.ask(
            "create a container",
            lambda api: api.create_container_from_config(body, name),
            seconds=START_SECONDS,
        )
        return cls(engine, made["Id"])

    async def attach(self) -> object:
        """Return the stream of its stdin, stdout and stderr."""
        options = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        return await self._engine.ask("attach", lambda api: api.attach_socket(self.id, options))

    async def start(self) -> None:
        """Start it."""
        await self._engine.ask("start a container", lambda api: api.start(self.id), seconds=START_SECONDS)

    async def put(self, place: str, pieces: Iterator[bytes], *, seconds: float) -> None:
        """Unpack a tar at a place inside."""
        await self._engine.ask(
            "send the workspace", lambda api: api.put_archive(self.id, place, pieces), seconds=seconds
        )

    async def inspect(self) -> dict[str, Any]:
        """Return what the engine says of it."""
        found: dict[str, Any] = await self._engine.ask(
            "inspect a container", lambda api: api.inspect_container(self.id)
        )
        return found

    async def complaint(self) -> Exception | None:
        """Say why it has ended, or nothing while it runs."""
        state = (await self.inspect())["State"]
        if state.get("Running"):
            return None
        said = state.get("Error") or f"exit status {state.get('ExitCode')}"
        return SandboxStartFailed(f"the container ended at its start: {said}")

    async def exit_status(self, *, timeout_seconds: float) -> int | None:
        """Return the exit status that the engine observed; None when it lives on."""
        with anyio.move_on_after(timeout_seconds):
            answer = await self._engine.ask(
                "wait for a container", lambda api: api.wait(self.id), seconds=timeout_seconds
            )
            return int(answer["StatusCode"])
        return None

    def hold(self, pid: int) -> bool:
        """Take hold of its first process, if that is a process of this container on this host."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        if not _belongs(pid, self.id):
            os.close(pidfd)
            return False
        self.pid, self._pidfd = pid, pidfd
        return True

    def kill_now(self) -> None:
        """Kill its first process, and all others with it, without asking the engine; may not be permitted."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return

    async def end(self) -> None:
        """Kill everything inside, by way of the engine where that is not permitted, and see that it is dead.

        Raises:
            SandboxError: The engine was needed and did not do it.
            SandboxUnresponsive: Its first process was not seen to end.
        """
        self.kill_now()
        if await self._is_gone(seconds=_KILL_SECONDS):
            return
        try:
            await self._engine.ask("remove a container", self._remove, seconds=_GONE_SECONDS)
        finally:
            if self._pidfd >= 0 and not await self._is_gone(seconds=_GONE_SECONDS):
                raise SandboxUnresponsive(f"process {self.pid} of a container cannot be ended")

    def remove_now(self) -> None:
        """Remove it, in this thread.

        Raises:
            SandboxError: The engine did not do it.
        """
        self._engine.ask_now("remove a container", self._remove)

    async def _is_gone(self, *, seconds: float) -> bool:
        """Whether its first process, and with it every other one, is seen to end in time."""
        if self._pidfd < 0:
            return False
        with anyio.move_on_after(seconds):
            await anyio.wait_readable(self._pidfd)
            return True
        return False

    def close(self) -> None:
        """Let go of its process."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _remove(self, api: docker.APIClient) -> None:
        try:
            api.remove_container(self.id, v=True, force=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if error.status_code != _CONFLICT or "already in progress" not in str(error.explanation):
                raise


def remove_volume(api: docker.APIClient, name: str) -> None:
    """Remove a volume; one that is gone is no error."""
    try:
        api.remove_volume(name, force=True)
    except docker.errors.NotFound:
        return


def _belongs(pid: int, container_id: str) -> bool:
    """Whether the kernel counts a process to a container."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as groups:
            return container_id in groups.read()
    except OSError:
        return False

"""The embedded sandbox: bubblewrap, started and watched by this process."""

from __future__ import annotations

import os
import platform
import secrets
import weakref
from typing import cast

import anyio
import anyio.to_thread

from sandboxes.base import Layer, SandboxIdentity, SandboxSpec, WorkspaceStrategy
from sandboxes.bubblewrap.binary import find_binary
from sandboxes.bubblewrap.controls import controls, observe
from sandboxes.bubblewrap.handshake import Started, shake_hands
from sandboxes.bubblewrap.image import guest_image
from sandboxes.bubblewrap.process import SandboxProcess
from sandboxes.bubblewrap.rootfs import root_file_system
from sandboxes.bubblewrap.spawn import Spawned, spawner
from sandboxes.channel import Channel
from sandboxes.errors import SandboxIntegrity, SandboxUnavailable
from sandboxes.resident import HOME, Opener, ResidentSandbox, Strategy, opened


class BubblewrapSandbox(ResidentSandbox):
    """One resident guest. ``layer``'s descriptor stays open as long as this object is alive."""

    def __init__(self, spec: SandboxSpec, *, strategy: Strategy = "auto", opener: Opener = "openat2") -> None:
        super().__init__(spec)
        self._wanted_strategy: Strategy = strategy
        self._opener: Opener = opener
        self._process: SandboxProcess | None = None
        self._ended = anyio.Lock()

    @property
    def guest_pid(self) -> int | None:
        """The guest's pid on the host."""
        return None if self._process is None else self._process.guest_pid

    async def aclose(self) -> None:
        """Kill everything inside and wait until it is gone."""
        with anyio.CancelScope(shield=True):
            async with self._ended:
                process, self._process = self._process, None
                if self._channel is not None:
                    self._channel.close()
                if process is not None:
                    await process.end()

    async def _open(self) -> None:
        spawned = await anyio.to_thread.run_sync(self._spawn)
        process = self._process = SandboxProcess(spawned)
        try:
            started = await shake_hands(
                spawned, process, self._spec, strategy=self._wanted_strategy, opener=self._opener
            )
        except BaseException:
            spawned.channel.close()
            raise
        finally:
            if spawned.staged is not None:
                spawner().release(spawned.staged)
        self._channel = Channel(spawned.channel, on_broken=process.give_up)
        self._layer = Layer(
            upper_fd=started.upper,
            lower=self._spec.workspace,
            strategy=cast("WorkspaceStrategy", started.strategy),
        )
        weakref.finalize(self, os.close, started.upper)
        await anyio.to_thread.run_sync(self._inspect, spawned, process, started)

    async def _exit_status(self, *, timeout_seconds: float) -> int | None:
        return await opened(self._process).wait(timeout_seconds=timeout_seconds)

    def _spawn(self) -> Spawned:
        self._environment = {
            "PATH": root_file_system().path,
            "HOME": HOME,
            "LANG": "C.UTF-8",
            **self._spec.environment,
        }
        return spawner().start(self._spec).result()

    def _inspect(self, spawned: Spawned, process: SandboxProcess, started: Started) -> None:
        if not process.identify_guest(started.guest_pid):
            raise SandboxIntegrity("the first answer does not come from the guest")
        seen = observe(started.guest_pid)
        self._controls = controls(self._spec, seen, host_uid=spawned.uid, key_ring=spawned.key_ring)
        self._identity = self._describe(started, spawned)
        missing = [item for item in self._controls if item.required and item.state == "missing"]
        if missing:
            said = "; ".join(f"{item.name} is {item.observed}" for item in missing)
            raise SandboxUnavailable(f"a required control does not hold in the sandbox: {said}")

    def _describe(self, started: Started, spawned: Spawned) -> SandboxIdentity:
        return SandboxIdentity(
            id=secrets.token_hex(8),
            backend="bubblewrap",
            backend_version=find_binary().version_text,
            guest_digest=guest_image().digest,
            strategy=cast("WorkspaceStrategy", started.strategy),
            shell=started.shell,
            holds_snapshot=started.strategy == "copy" or spawned.lower == "copied",
            details={
                "kernel": platform.release(),
                "machine": platform.machine(),
                "interpreter": root_file_system().interpreter,
                "host_uid": str(spawned.uid),
                "lower": spawned.lower,
            },
        )

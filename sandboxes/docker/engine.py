"""The engine through its SDK: off the event loop, with a deadline on every request."""

from __future__ import annotations

import os
import platform
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import docker
import docker.context
import docker.tls
import docker.utils
from docker.context.config import get_current_context_name

from sandboxes.docker.failure import classify
from sandboxes.errors import EngineLost, EngineUnresponsive, SandboxError, SandboxUnavailable

T = TypeVar("T")

START_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 10.0

_CREDENTIALS: Final = struct.Struct("3i")
_UNIX: Final = "http+docker://localhost"
_MOST_THREADS: Final = 32

_NAMES: Final = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "HOME",
)
_lock = threading.Lock()
_engines: dict[tuple[str | None, ...], Engine] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """What an engine says of itself, and whether it works on the very kernel that this process runs on.

    Attributes:
        near: It may see this host's paths, with root as this host's. What proves it is a start: the
            container's first process calls at a socket in a private directory, and is one of this host's
            processes in a control group of the container's name.
    """

    version: str
    kernel: str
    cgroup_version: str
    runtimes: tuple[str, ...]
    security: tuple[str, ...]
    near: bool


def engine() -> Engine:
    """Return the engine that DOCKER_HOST or the current context names; nothing is asked of it yet."""
    key = (*map(os.environ.get, _NAMES), str(os.getpid()))
    with _lock:
        if key not in _engines:
            _engines[key] = Engine(_connection_settings())
        return _engines[key]


class Engine:
    """One engine. Requests share its connections and may be made at the same time."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._api: docker.APIClient | None = None
        self._facts: EngineFacts | None = None
        self._making = threading.Lock()
        # Whether it was seen that it does not find a directory that is here.
        self.is_distant = False

    async def ask(
        self, what: str, function: Callable[[docker.APIClient], T], *, seconds: float = ANSWER_SECONDS
    ) -> T:
        """Make a request in a thread.

        Raises:
            EngineLost: It cannot be reached.
            EngineUnresponsive: It did not answer in time; the request may still be carried out.
            SandboxError: It refused.
        """
        try:
            with anyio.fail_after(seconds):
                return await anyio.to_thread.run_sync(
                    partial(self.ask_now, what, function), abandon_on_cancel=True, limiter=_limiter()
                )
        except TimeoutError:
            raise EngineUnresponsive(f"the engine did not answer in {seconds:.0f} s: {what}") from None

    def ask_now(self, what: str, function: Callable[[docker.APIClient], T]) -> T:
        """Make a request in this thread."""
        try:
            return function(self._client())
        except SandboxError:
            raise
        except Exception as error:
            raise classify(error, during=what) from error

    async def facts(self) -> EngineFacts:
        """Return what the engine says of itself, asked once."""
        if self._facts is None:
            self._facts = await self.ask("info", self._read_facts)
        return self._facts

    def facts_now(self) -> EngineFacts:
        """Return what the engine says of itself, in this thread."""
        return self.ask_now("info", self._read_facts)

    def _client(self) -> docker.APIClient:
        self._greet()
        with self._making:
            if self._api is None:
                self._api = _Client(**self._settings, version="auto", timeout=int(START_SECONDS))
            return self._api

    def _greet(self) -> None:
        """See by a connection of our own that somebody listens: the SDK leaves one that fails unclosed."""
        place = self._place()
        if place is not None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(ANSWER_SECONDS)
                connection.connect(place)

    def _place(self) -> str | None:
        """Return the path of the engine's socket; None for an engine that is reached in another way."""
        address = str(self._settings.get("base_url") or "unix:///var/run/docker.sock")
        return address.removeprefix("unix://") if address.startswith("unix://") else None

    def _read_facts(self, api: docker.APIClient) -> EngineFacts:
        said = api.info()
        security = tuple(str(option) for option in said.get("SecurityOptions") or ())
        remapped = any("name=userns" in option or "name=rootless" in option for option in security)
        return EngineFacts(
            version=str(said.get("ServerVersion", "")),
            kernel=str(said.get("KernelVersion", "")),
            cgroup_version=str(said.get("CgroupVersion", "1")),
            runtimes=tuple(sorted(said.get("Runtimes") or ())),
            security=security,
            near=not remapped
            and said.get("KernelVersion") == platform.release()
            and self._has_neighbour(api),
        )

    def _has_neighbour(self, api: docker.APIClient) -> bool:
        """Whether the other end of the connection is a process that this one can name."""
        place = self._place()
        if api.base_url != _UNIX or place is None:
            return False
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(place)
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return bool(_CREDENTIALS.unpack(raw)[0] > 0)


class _Client(docker.APIClient):  # type: ignore[misc]
    """The SDK's client, whose authority for certificates the environment cannot replace."""

    def merge_environment_settings(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *how: Any,  # noqa: ANN401
    ) -> dict[str, Any]:
        """Return what holds for one request."""
        # REQUESTS_CA_BUNDLE would come before the authority that the engine's certificate was made by.
        merged = super().merge_environment_settings(*how)  # pyright: ignore[reportArgumentType]
        return {**merged, "verify": self.verify, "cert": self.cert}


def _limiter() -> anyio.CapacityLimiter:
    """Return a limiter for each event loop: threads that a hung engine holds hold nobody else up."""
    try:
        return _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MOST_THREADS)
        _threads.set(limiter)
        return limiter


_threads: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("remit_engine_threads")


def _connection_settings() -> Mapping[str, Any]:
    """Return what the SDK's client needs: DOCKER_HOST and its relatives, else the current context."""
    try:
        settings = docker.utils.kwargs_from_env()
        if "base_url" not in settings:
            settings = _context_settings()
    except SandboxError:
        raise
    except Exception as error:
        raise EngineLost(f"the engine's address cannot be read: {error}", hint="see DOCKER_HOST") from error
    if str(settings.get("base_url", "")).startswith("ssh://"):
        raise SandboxUnavailable(
            "an engine over SSH is not spoken to directly",
            hint="ssh -nNT -L /a/private/folder/engine.sock:/var/run/docker.sock HOST, and "
            "DOCKER_HOST=unix:///a/private/folder/engine.sock",
        )
    return {name: value for name, value in settings.items() if value}


def _context_settings() -> dict[str, Any]:
    """Return the settings of the context that DOCKER_CONTEXT names, else of the current one."""
    name = os.environ.get("DOCKER_CONTEXT") or get_current_context_name()
    context = docker.context.ContextAPI.get_context(name)
    if context is None:
        raise EngineLost(f"there is no context {name!r}", hint="docker context ls")
    return {"base_url": context.Host, "tls": context.TLSConfig or False}

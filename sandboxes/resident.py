"""A sandbox with a resident guest: the calls, over the channel to it, whatever isolates it."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

import anyio

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
)
from sandboxes.channel import Channel
from sandboxes.errors import SandboxError, SandboxIntegrity
from sandboxes.guest.frames import MAX_BODY_BYTES, NONCE_BYTES

HOME = "/tmp/home"  # noqa: S108

_FILE_SECONDS = 60.0
_EXEC_GRACE_SECONDS = 10.0
_EXIT_SECONDS = 5.0
_PART_BYTES = 16 * 1024 * 1024

T = TypeVar("T")
Strategy = Literal["auto", "overlay", "copy"]
Opener = Literal["openat2", "walk"]


class ResidentSandbox(ABC):
    """What every backend with a guest has in common.

    A backend opens and closes it, and says with which status it was seen to end. ``_open`` sets channel,
    environment, layer, identity and controls.
    """

    def __init__(self, spec: SandboxSpec) -> None:
        self._spec = spec
        self._channel: Channel | None = None
        self._environment: dict[str, str] = {}
        self._controls: tuple[Control, ...] = ()
        self._layer: Layer | None = None
        self._identity: SandboxIdentity | None = None

    @property
    def identity(self) -> SandboxIdentity:
        """What this sandbox is made of."""
        return opened(self._identity)

    @property
    def controls(self) -> tuple[Control, ...]:
        """What isolates this sandbox, as configured and as seen from outside when it was opened."""
        return self._controls

    @property
    def layer(self) -> Layer:
        """The changes so far."""
        return opened(self._layer)

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run one command to its end."""
        return await self._exec("exec", request)

    async def exec_last(self, request: ExecRequest) -> ExecResult:
        """Run one command and end the sandbox with its exit status, as observed from outside."""
        result = await self._exec("exec_last", request)
        if wire.unsendable_result(request) is not None:
            await self.aclose()
            return result
        status = await self._exit_status(timeout_seconds=_EXIT_SECONDS)
        claimed = result.exit_code if result.exit_code is not None else 128 + (result.signal or 9)
        await self.aclose()
        if status != claimed:
            raise SandboxIntegrity(f"guest claims the exit status {claimed}, the host observed {status}")
        return result

    async def read_file(self, path: str, *, offset: int = 0, max_bytes: int) -> FileContent | FileProblem:
        """Read a regular file, following no link."""
        return await self._file(
            "read",
            {"path": path, "offset": offset, "max_bytes": max_bytes},
            partial(wire.content, path=path, offset=offset, max_bytes=max_bytes),
        )

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
        fields = {
            "path": path,
            "data": data,
            "upload": None,
            "mode": mode,
            "create_parents": create_parents,
            "must_not_exist": must_not_exist,
            "expected_sha256": expected_sha256,
            "modified_ns": modified_ns,
        }
        parse = partial(wire.written, path=path, size=len(data))
        if len(data) <= _PART_BYTES:
            return await self._file("write", fields, parse)
        token = secrets.token_bytes(NONCE_BYTES)
        try:
            problem = await self._upload(token, path, data)
            if problem is not None:
                return problem
            answer = await self._file("write", {**fields, "data": b"", "upload": token}, parse)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._drop_upload(token)
            raise
        if isinstance(answer, FileProblem):
            await self._drop_upload(token)
        return answer

    async def remove(self, path: str) -> FileRemoved | FileProblem:
        """Remove a file, a link or an empty directory."""
        return await self._file("remove", {"path": path}, partial(wire.removed, path=path))

    async def make_directory(self, path: str, *, mode: int = 0o755) -> FileWritten | FileProblem:
        """Make one directory; an existing one only gets ``mode``."""
        fields = {"path": path, "mode": mode}
        return await self._file("mkdir", fields, partial(wire.written, path=path, size=0))

    async def make_symlink(self, path: str, *, target: str) -> FileWritten | FileProblem:
        """Make a symbolic link that holds ``target`` unresolved."""
        if not wire.is_sendable(target):
            return FileProblem(kind="invalid_path", path=path, detail="the target is no text")
        fields = {"path": path, "content": target}
        return await self._file("symlink", fields, partial(wire.written, path=path, size=0))

    async def list_directory(
        self, path: str, *, recursive: bool = False, max_entries: int = 1000
    ) -> Listing | FileProblem:
        """List a directory, following no link."""
        fields = {"path": path, "recursive": recursive, "max_entries": max_entries}
        return await self._file("list", fields, partial(wire.listing, path=path, max_entries=max_entries))

    async def used_bytes(self) -> int:
        """Bytes that the workspace's changes occupy now."""
        reply = await self._call("used", {})
        self._checked(wire.check_reply, reply, "used")
        return cast("int", reply["bytes"])

    async def ping(self) -> None:
        """Have the guest answer."""
        self._checked(wire.check_reply, await self._call("ping", {}), "pong")

    @abstractmethod
    async def aclose(self) -> None:
        """Kill everything inside and wait until it is gone."""

    @abstractmethod
    async def _open(self) -> None:
        """Bring the sandbox up."""

    @abstractmethod
    async def _exit_status(self, *, timeout_seconds: float) -> int | None:
        """Return the exit status of the sandbox as it was observed; None when it lives on."""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _upload(self, token: bytes, path: str, data: bytes) -> FileProblem | None:
        """Give the guest content that is too long for one frame, part by part."""
        for start in range(0, len(data), _PART_BYTES):
            part = data[start : start + _PART_BYTES]
            fields = {"path": ".", "upload": token, "data": part, "more": True}
            answer = await self._file("upload", fields, partial(wire.written, path=path, size=len(part)))
            if isinstance(answer, FileProblem):
                return answer
        return None

    async def _drop_upload(self, token: bytes) -> None:
        fields = {"path": ".", "upload": token, "data": b"", "more": False}
        await self._file("upload", fields, partial(wire.written, path=".", size=0))

    async def _file(
        self, operation: str, fields: dict[str, Any], parse: Callable[[dict[str, Any]], T]
    ) -> T | FileProblem:
        if not wire.is_sendable(fields["path"]):
            return FileProblem(kind="invalid_path", path=fields["path"], detail="the path is no text")
        return self._checked(parse, await self._call(operation, fields))

    async def _exec(self, operation: str, request: ExecRequest) -> ExecResult:
        unsendable = wire.unsendable_result(request)
        if unsendable is not None:
            return unsendable
        if len(request.stdin) > MAX_BODY_BYTES:
            raise SandboxError(f"input of {len(request.stdin)} bytes is more than {MAX_BODY_BYTES}")
        environment = {**self._environment, **request.environment}
        fields = wire.exec_fields(request, environment=environment)
        timeout = request.timeout_seconds + _EXEC_GRACE_SECONDS
        reply = await self._call(operation, fields, timeout_seconds=timeout, cancellable=True)
        return self._checked(wire.exec_result, reply, request=request)

    async def _call(
        self,
        operation: str,
        fields: Mapping[str, Any],
        *,
        timeout_seconds: float = _FILE_SECONDS,
        cancellable: bool = False,
    ) -> dict[str, Any]:
        return await opened(self._channel).call(
            operation, fields, timeout_seconds=timeout_seconds, cancellable=cancellable
        )

    def _checked(self, parse: Callable[..., T], reply: dict[str, Any], *kinds: str, **details: object) -> T:
        try:
            return parse(reply, *kinds, **details)
        except SandboxIntegrity as error:
            raise opened(self._channel).fail(error) from None


def opened(value: T | None) -> T:
    """Return what an open sandbox has.

    Raises:
        SandboxError: It is not open.
    """
    if value is None:
        raise SandboxError("the sandbox is not open")
    return value

"""The first exchange with a guest in a container: it calls, gets program and settings, and is ready."""

from __future__ import annotations

import os
import platform
import secrets
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import anyio.to_thread

from sandboxes import wire
from sandboxes.base import SandboxSpec, WorkspaceStrategy
from sandboxes.docker.program import MAGIC_BYTES, GuestProgram
from sandboxes.errors import SandboxIntegrity, SandboxStartFailed, SandboxUnresponsive
from sandboxes.guest.frames import NONCE_BYTES, FrameReader, decode_payload, encode_frame
from sandboxes.seccomp import build_filter

LIFETIME_SECONDS: Final = 24 * 3600
START_SECONDS: Final = 30.0

_LOOK_SECONDS: Final = 0.5
_CREDENTIALS: Final = struct.Struct("3i")


def listen(place: str) -> socket.socket:
    """Listen for one guest at a path in a directory that is private to this user."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(place)
        os.chmod(place, stat.S_IRUSR | stat.S_IWUSR)
        listener.listen(1)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


async def accept(
    listener: socket.socket, *, place: str, complaint: Callable[[], Awaitable[Exception | None]]
) -> tuple[socket.socket, int]:
    """Take the guest's call, then nobody else's; returns the connection and the caller's pid on this host.

    Raises:
        SandboxStartFailed: The container ended first; ``complaint`` is asked now and then and says why.
        SandboxUnresponsive: Nobody called in time.
    """
    try:
        with anyio.fail_after(START_SECONDS):
            while True:
                with anyio.move_on_after(_LOOK_SECONDS):
                    await anyio.wait_readable(listener)
                    connection, _ = listener.accept()
                    break
                error = await complaint()
                if error is not None:
                    raise error
    except TimeoutError:
        raise SandboxUnresponsive("the guest of the container did not call") from None
    finally:
        listener.close()
    connection.setblocking(False)
    await anyio.to_thread.run_sync(os.unlink, place)
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return connection, int(_CREDENTIALS.unpack(raw)[0])


async def greet(connection: socket.socket, settings: dict[str, Any], *, program: GuestProgram) -> str:
    """Give the guest its program and its settings, wait until it is ready, and return the shell that it has.

    Raises:
        SandboxStartFailed: It ended, or says that it cannot do its work.
        SandboxUnresponsive: It said nothing in time.
        SandboxIntegrity: It said something else.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    try:
        with anyio.fail_after(START_SECONDS):
            magic = await _receive_exactly(connection, MAGIC_BYTES)
            await _send(connection, program.answer_to(magic))
            await _send(connection, encode_frame({"n": nonce, "settings": settings}))
            reply = await _receive(connection)
    except TimeoutError:
        raise SandboxUnresponsive("the guest of the container did not answer") from None
    except (OSError, EOFError):
        raise SandboxStartFailed("the guest of the container ended at its start") from None
    if reply.get("k") == "failed" and isinstance(reply.get("detail"), str):
        raise SandboxStartFailed(f"the guest of the container cannot work: {reply['detail'][:400]!r}")
    wire.check_reply(reply, "ready")
    if not secrets.compare_digest(reply["n"], nonce) or reply["strategy"] != settings["strategy"]:
        raise SandboxIntegrity("the guest's first answer is none to the settings it was given")
    return wire.shell(reply)


def guest_settings(
    spec: SandboxSpec, *, uid: int, gid: int, strategy: WorkspaceStrategy, opener: str
) -> dict[str, Any]:
    """Return what the guest has to know."""
    limits = spec.limits
    return {
        "mount": spec.mount,
        "strategy": strategy,
        "opener": opener,
        "uid": uid,
        "gid": gid,
        "lifetime_seconds": LIFETIME_SECONDS,
        "memory_bytes": limits.memory_bytes,
        "pids": limits.pids,
        "open_files": limits.open_files,
        "file_bytes": limits.file_bytes,
        "cpu_seconds": limits.cpu_seconds,
        "output_limit_bytes": limits.output_limit_bytes,
        "seccomp": build_filter(platform.machine()),
    }


async def _send(connection: socket.socket, frame: bytes) -> None:
    rest = memoryview(frame)
    while rest:
        await anyio.wait_writable(connection)
        rest = rest[connection.send(rest) :]


async def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        await anyio.wait_readable(connection)
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


async def _receive(connection: socket.socket) -> dict[str, Any]:
    reader = FrameReader()
    while True:
        await anyio.wait_readable(connection)
        count = connection.recv_into(reader.room())
        if count == 0:
            raise EOFError
        payload = reader.filled(count)
        if payload is not None:
            return decode_payload(payload)

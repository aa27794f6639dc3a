"""The first exchange with a guest: settings in, readiness and the descriptor of the changes out."""

from __future__ import annotations

import array
import itertools
import os
import platform
import secrets
import socket
import stat
import struct
from dataclasses import dataclass
from typing import Any

import anyio

from sandboxes import wire
from sandboxes.base import SandboxSpec
from sandboxes.bubblewrap.process import SandboxProcess
from sandboxes.bubblewrap.spawn import Spawned
from sandboxes.errors import SandboxIntegrity, SandboxStartFailed, SandboxUnavailable
from sandboxes.guest.frames import NONCE_BYTES, FrameReader, decode_payload, encode_frame
from sandboxes.resident import Opener
from sandboxes.seccomp import build_filter

MOST_COVERS = 1024

_START_SECONDS = 15.0
_TMP_INODES = 16384
_SHM_BYTES = 16 * 1024 * 1024
_CREDENTIALS = struct.Struct("3i")
_turn = itertools.count()


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A guest that answered.

    Attributes:
        guest_pid: Who sent the answer, as the kernel says.
        upper: An open descriptor that the caller owns from here on.
        strategy: How the changes are kept.
        shell: The shell that commands are written for.
    """

    guest_pid: int
    upper: int
    strategy: str
    shell: str


async def shake_hands(
    spawned: Spawned, process: SandboxProcess, spec: SandboxSpec, *, strategy: str, opener: Opener
) -> Started:
    """Give a new guest its settings and wait until it has built the workspace.

    Raises:
        SandboxUnavailable: bubblewrap says that this host does not allow what it needs.
        SandboxStartFailed: The guest ended or did not answer.
        SandboxIntegrity: It answered something else.
    """
    connection = spawned.channel
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    nonce = secrets.token_bytes(NONCE_BYTES)
    exchange = _Exchange(connection)
    try:
        with anyio.fail_after(_START_SECONDS):
            await exchange.send(encode_frame({"n": nonce, "settings": _settings(spec, strategy, opener)}))
            reply = await exchange.receive()
    except TimeoutError:
        exchange.close_descriptors()
        raise SandboxStartFailed("the guest did not answer", hint=process.said() or None) from None
    except (OSError, EOFError):
        exchange.close_descriptors()
        await process.end()
        raise _start_error(process.said()) from None
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    try:
        return _judge(reply, nonce, exchange)
    except BaseException:
        exchange.close_descriptors()
        raise


class _Exchange:
    """One frame out, one frame in, with what the kernel attaches to it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.sender: int | None = None
        self.descriptors: list[int] = []

    async def send(self, frame: bytes) -> None:
        rest = memoryview(frame)
        while rest:
            await anyio.wait_writable(self._connection)
            rest = rest[self._connection.send(rest) :]

    async def receive(self) -> dict[str, Any]:
        reader = FrameReader()
        while True:
            await anyio.wait_readable(self._connection)
            payload = reader.filled(self._receive_into(reader.room()))
            if payload is not None:
                return decode_payload(payload)

    def close_descriptors(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []

    def _receive_into(self, room: memoryview) -> int:
        space = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * 4)
        count, ancillary, _, _ = self._connection.recvmsg_into([room], space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                self.descriptors.extend(numbers)
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                self.sender = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
        if count == 0:
            raise EOFError
        return count


def _judge(reply: dict[str, Any], nonce: bytes, exchange: _Exchange) -> Started:
    wire.check_reply(reply, "ready")
    if not secrets.compare_digest(reply["n"], nonce) or reply["strategy"] not in ("overlay", "copy"):
        raise SandboxIntegrity("the guest's first answer is none to the settings it was given")
    if len(exchange.descriptors) != 1 or not stat.S_ISDIR(os.fstat(exchange.descriptors[0]).st_mode):
        raise SandboxIntegrity("the guest did not hand over one directory")
    if exchange.sender is None:
        raise SandboxIntegrity("the kernel does not say who sent the first answer")
    return Started(
        guest_pid=exchange.sender,
        upper=exchange.descriptors[0],
        strategy=reply["strategy"],
        shell=wire.shell(reply),
    )


def _settings(spec: SandboxSpec, strategy: str, opener: Opener) -> dict[str, Any]:
    limits = spec.limits
    return {
        "mount": spec.mount,
        "strategy": strategy,
        "opener": opener,
        "hidden": list(spec.hidden),
        "read_only": list(spec.read_only),
        "disk_bytes": limits.disk_bytes,
        "inodes": limits.inodes,
        "tmp_bytes": limits.tmp_bytes,
        "tmp_inodes": min(limits.inodes, _TMP_INODES),
        "shm_bytes": min(limits.tmp_bytes, _SHM_BYTES),
        "memory_bytes": limits.memory_bytes,
        "pids": limits.pids,
        "open_files": limits.open_files,
        "file_bytes": limits.file_bytes,
        "cpu_seconds": limits.cpu_seconds,
        "output_limit_bytes": limits.output_limit_bytes,
        "affinity": _affinity(limits.cpus),
        "seccomp": build_filter(platform.machine()),
    }


def _affinity(cpus: int) -> list[int]:
    """Return which processors the commands of the next sandbox may use; neighbours get different ones."""
    available = sorted(os.sched_getaffinity(0))
    first = next(_turn)
    return [available[(first + index) % len(available)] for index in range(min(cpus, len(available)))]


def _start_error(said: str) -> SandboxUnavailable | SandboxStartFailed:
    for sign, sentence, hint in _REFUSALS:
        if sign in said:
            return SandboxUnavailable(sentence, hint=hint)
    return SandboxStartFailed(f"bubblewrap or the guest ended at the start: {said[-500:] or 'no message'}")


_REFUSALS = (
    (
        "No permissions to create new namespace",
        "this host does not let an ordinary user make user namespaces",
        "see kernel.unprivileged_userns_clone and user.max_user_namespaces, or AppArmor",
    ),
    (
        "setting up uid map: Permission denied",
        "AppArmor restricts user namespaces on this host",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap",
    ),
    (
        "Creating new namespace failed",
        "this host does not allow new namespaces here",
        "see user.max_user_namespaces and the container's seccomp profile",
    ),
)

"""The one thread that starts every bubblewrap of this process.

The kernel binds "die with your parent" to the thread that forked, so that thread has to live as long as the
process. It also has a session key ring of its own and, when the broker is root, mounts of its own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from sandboxes.base import SandboxSpec
from sandboxes.bubblewrap import mounts
from sandboxes.bubblewrap.argv import Plan, bwrap_argv
from sandboxes.bubblewrap.binary import find_binary
from sandboxes.bubblewrap.credentials import thread_user
from sandboxes.bubblewrap.image import PLACE, guest_image
from sandboxes.bubblewrap.orphans import end_orphans
from sandboxes.bubblewrap.rootfs import GENERATED_FILES, root_file_system
from sandboxes.bubblewrap.staging import Lower, StagedTree, Staging
from sandboxes.errors import SandboxStartFailed, SandboxUnavailable

Answer = TypeVar("Answer")

_SO_SNDBUFFORCE = 32
_SOCKET_BYTES = 1 << 20
_COLLECT_SECONDS = 5.0

_lock = threading.Lock()
_spawner: Spawner | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Spawned:
    """A bubblewrap that was just started.

    Attributes:
        process: Its process; the guest is a child of it.
        pidfd: The same, as a descriptor.
        channel: The host's end of the guest's channel.
        errors: What bubblewrap and the guest print, untrusted; not blocking.
        staged: The staged tree to release once the guest has mounted it.
        lower: How the user's tree is shown to it.
        uid: The host uid that everything inside has.
    """

    process: subprocess.Popen[bytes]
    pidfd: int
    channel: socket.socket
    errors: int
    staged: str | None
    lower: Lower
    uid: int
    key_ring: bool


def spawner() -> Spawner:
    """Return this process's spawner, started at first use and again after a fork."""
    global _spawner
    with _lock:
        if _spawner is None or _spawner.owner != os.getpid():
            _spawner = Spawner()
        return _spawner


class Spawner:
    """Runs jobs on a thread that never ends before the process does."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._staging: Staging | None = None
        self._key_ring: bool | None = None
        self._thread = threading.Thread(target=self._work, name="remit-spawner", daemon=True)
        self._thread.start()

    def start(self, spec: SandboxSpec) -> Future[Spawned]:
        """Start bubblewrap for a spec."""
        return self._submit(lambda: self._start(spec))

    def release(self, staged: str) -> Future[None]:
        """Take a staged tree away."""
        return self._submit(lambda: self._release(staged))

    def collect(self, process: subprocess.Popen[bytes]) -> Future[None]:
        """Wait for the end of a bubblewrap whose guest is gone, and see that it does end."""
        return self._submit(lambda: _collect(process))

    def _submit(self, job: Callable[[], Answer]) -> Future[Answer]:
        future: Future[Answer] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001 (the caller gets it)
                future.set_exception(error)

        self._jobs.put(run)
        return future

    def _work(self) -> None:
        self._jobs.get()()
        end_orphans()
        while True:
            self._jobs.get()()

    def _start(self, spec: SandboxSpec) -> Spawned:
        if self._key_ring is None:
            self._key_ring = mounts.join_new_session_keyring()
        staging = self._staging_if_root()
        with ExitStack() as undo:
            workspace = os.path.realpath(spec.workspace)
            tree = StagedTree(place=workspace, lower="direct")
            if staging is not None:
                tree = staging.tree(workspace)
                undo.callback(staging.release, tree.place)
            started = self._spawn(spec, staging, tree)
            undo.pop_all()
        return started

    def _release(self, staged: str) -> None:
        if self._staging is not None:
            self._staging.release(staged)

    def _staging_if_root(self) -> Staging | None:
        if os.geteuid() != 0:
            return None
        if self._staging is None:
            try:
                self._staging = Staging()
            except OSError as error:
                raise SandboxUnavailable(
                    f"started by root without the right to mount ({error.filename}: {error.strerror})",
                    hint="run as an ordinary user",
                ) from error
        return self._staging

    def _spawn(self, spec: SandboxSpec, staging: Staging | None, tree: StagedTree) -> Spawned:
        with ExitStack() as inside, ExitStack() as ours:
            host, guest = _socket_pair()
            inside.callback(guest.close)
            ours.callback(host.close)
            errors, error_writer = os.pipe()
            inside.callback(os.close, error_writer)
            ours.callback(os.close, errors)
            os.set_blocking(errors, False)
            os.set_blocking(error_writer, False)
            plan = _plan(spec, staging, tree.place, guest.fileno(), inside)
            process = _popen(plan, staging, error_writer)
            ours.callback(process.wait)
            ours.callback(os.killpg, process.pid, signal.SIGKILL)
            pidfd = os.pidfd_open(process.pid)
            ours.pop_all()
        return Spawned(
            process=process,
            pidfd=pidfd,
            channel=host,
            errors=errors,
            staged=tree.place if staging is not None else None,
            lower=tree.lower,
            uid=os.geteuid() if staging is None else staging.uid,
            key_ring=bool(self._key_ring),
        )


def _collect(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_COLLECT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair with room for a megabyte, so that bulk data passes in few wake-ups."""
    pair = socket.socketpair()
    option = _SO_SNDBUFFORCE if os.geteuid() == 0 else socket.SO_SNDBUF
    for end in pair:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
    return pair


def _plan(spec: SandboxSpec, staging: Staging | None, lower: str, channel: int, inside: ExitStack) -> Plan:
    system = root_file_system()
    binary = find_binary()
    binds = [(path, path) for path in system.trees]
    if system.prefix is not None:
        source = system.prefix if staging is None else staging.system_tree(system.prefix)
        binds.append((source, system.prefix))
    contents = (*GENERATED_FILES, (PLACE, guest_image().content))
    copies = [(_memory_file(content, inside), place) for place, content in contents]
    copies += [(_open(path, inside), path) for path in system.files]
    return Plan(
        bwrap=str(binary.path) if staging is None else staging.program(binary),
        interpreter=system.interpreter,
        lower=lower,
        mount=spec.mount,
        binds=tuple(binds),
        links=system.links,
        copies=tuple(copies),
        channel=channel,
    )


def _popen(plan: Plan, staging: Staging | None, error_writer: int) -> subprocess.Popen[bytes]:
    with contextlib.nullcontext() if staging is None else thread_user(staging.uid):
        try:
            return subprocess.Popen(
                bwrap_argv(plan),
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=error_writer,
                stderr=error_writer,
                close_fds=True,
                pass_fds=(plan.channel, *(number for number, _ in plan.copies)),
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxStartFailed(f"{plan.bwrap} could not be started: {error.strerror}") from error


def _memory_file(content: bytes, inside: ExitStack) -> int:
    descriptor = os.memfd_create("remit", os.MFD_CLOEXEC)
    inside.callback(os.close, descriptor)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _open(path: str, inside: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    inside.callback(os.close, descriptor)
    return descriptor

"""A sandbox for tests: no isolation at all, a copied tree, and commands answered by a script.

File operations are real ones on a private copy of the workspace; commands never run. Faults can be planted,
so that a broker can be seen to cope with a sandbox that dies, hangs or cannot be believed.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from sandboxes.base import (
    Control,
    ExecRequest,
    ExecResult,
    FileContent,
    FileProblem,
    FileRemoved,
    FileWritten,
    Layer,
    LimitName,
    Listing,
    Sandbox,
    SandboxIdentity,
    SandboxSpec,
)
from sandboxes.errors import SandboxDied, SandboxIntegrity, SandboxStartFailed, SandboxUnresponsive
from sandboxes.workspace.layers import copy_tree
from sandboxes.workspace.private import PrivateTree

REMOVING = "remit-fake-removal"

T = TypeVar("T")
Fault = Literal["die", "hang", "integrity", "unresponsive"]
Script = (
    Mapping[tuple[str, ...], ExecResult]
    | Callable[["FakeSandbox", ExecRequest], ExecResult | Awaitable[ExecResult]]
)


class FakeCall(NamedTuple):
    """One method that was called, and what it was called with."""

    method: str
    subject: ExecRequest | str


def exec_result(
    output: bytes = b"",
    *,
    exit_code: int | None = 0,
    signal: int | None = None,
    limit: LimitName | None = None,
    max_output_bytes: int = 64 * 1024,
    wall_seconds: float = 0.001,
) -> ExecResult:
    """Build how a command ended; a signal or a limit takes the place of the exit code."""
    head, tail = max_output_bytes - max_output_bytes // 2, max_output_bytes // 2
    truncated = len(output) > max_output_bytes
    return ExecResult(
        exit_code=None if signal is not None or limit is not None else exit_code,
        signal=None if limit is not None else signal,
        limit=limit,
        output=output[:head] + output[len(output) - tail :] if truncated else output,
        output_bytes=len(output),
        output_sha256=hashlib.sha256(output).hexdigest(),
        truncated=truncated,
        wall_seconds=wall_seconds,
        cpu_seconds=0.0,
        peak_memory_bytes=0,
        written_bytes=0,
    )


class FakeSandbox:
    """A `Sandbox` over a private copy of the workspace. Making one copies the tree, so make it in a thread.

    Attributes:
        calls: Every method called so far, in order.
        files: The copy, for a script that plays a command which changes files.
    """

    def __init__(self, spec: SandboxSpec, *, script: Script | None = None) -> None:
        self.spec = spec
        self.calls: list[FakeCall] = []
        self._script: Script = {} if script is None else script
        self._faults: dict[str, Fault] = {}
        self._dead: str | None = None
        self._ended = anyio.Event()
        self._one_at_a_time = anyio.CapacityLimiter(1)
        root = Path(tempfile.mkdtemp(prefix="remit-fake-"))
        copy_tree(spec.workspace, root)
        self._upper_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.root = root
        self.files = PrivateTree(
            self._upper_fd,
            mount=spec.mount,
            hidden=spec.hidden,
            read_only=spec.read_only,
            max_bytes=spec.limits.disk_bytes,
        )
        # The layer outlives the sandbox: the copy goes when nobody can ask for it any more.
        self.dispose = weakref.finalize(self, _dispose, self._upper_fd, root)

    @property
    def identity(self) -> SandboxIdentity:
        """Say plainly that this is a fake."""
        return SandboxIdentity(
            id=self.root.name,
            backend="fake",
            backend_version="1",
            guest_digest="sha256:" + "0" * 64,
            strategy="copy",
            holds_snapshot=True,
        )

    @property
    def controls(self) -> tuple[Control, ...]:
        """Give one control, which is missing: nothing is isolated here."""
        return (
            Control(name="isolation", configured="none", observed="none", state="observed", required=False),
        )

    @property
    def layer(self) -> Layer:
        """Give the copy and the tree that it was copied from."""
        return Layer(upper_fd=self._upper_fd, lower=self.spec.workspace, strategy="copy")

    def plant(self, fault: Fault, *, on: str = "*") -> None:
        """Let the next call of a method (``"*"``: of any) meet a fault; after it the sandbox is dead."""
        self._faults[on] = fault

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Answer from the script; a command that it does not know is not found (127)."""
        await self._enter("exec", request)
        return await self._played(request)

    async def exec_last(self, request: ExecRequest) -> ExecResult:
        """Answer from the script and end the sandbox."""
        await self._enter("exec_last", request)
        result = await self._played(request)
        await self.aclose()
        return result

    async def read_file(self, path: str, *, offset: int = 0, max_bytes: int) -> FileContent | FileProblem:
        """Read from the copy."""
        await self._enter("read_file", path)
        return await self._in_thread(partial(self.files.read, path, offset=offset, max_bytes=max_bytes))

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
        """Write to the copy."""
        await self._enter("write_file", path)
        write = partial(
            self.files.write,
            path,
            data,
            mode=mode,
            create_parents=create_parents,
            must_not_exist=must_not_exist,
            expected_sha256=expected_sha256,
            modified_ns=modified_ns,
        )
        return await self._in_thread(write)

    async def remove(self, path: str) -> FileRemoved | FileProblem:
        """Remove from the copy."""
        await self._enter("remove", path)
        return await self._in_thread(partial(self.files.remove, path))

    async def make_directory(self, path: str, *, mode: int = 0o755) -> FileWritten | FileProblem:
        """Make a directory in the copy."""
        await self._enter("make_directory", path)
        return await self._in_thread(partial(self.files.make_directory, path, mode=mode))

    async def make_symlink(self, path: str, *, target: str) -> FileWritten | FileProblem:
        """Make a link in the copy."""
        await self._enter("make_symlink", path)
        return await self._in_thread(partial(self.files.make_symlink, path, target=target))

    async def list_directory(
        self, path: str, *, recursive: bool = False, max_entries: int = 1000
    ) -> Listing | FileProblem:
        """List the copy."""
        await self._enter("list_directory", path)
        entries = partial(self.files.list_entries, path, recursive=recursive, max_entries=max_entries)
        return await self._in_thread(entries)

    async def used_bytes(self) -> int:
        """Give by how much the copy has grown."""
        await self._enter("used_bytes", ".")
        return await self._in_thread(self.files.used_bytes)

    async def aclose(self) -> None:
        """End the sandbox; calls that hang in it end with it."""
        self._end("it was closed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _enter(self, method: str, subject: ExecRequest | str) -> None:
        self.calls.append(FakeCall(method, subject))
        await anyio.lowlevel.checkpoint()
        if self._dead is not None:
            raise SandboxDied(f"the fake sandbox is dead: {self._dead}")
        fault = self._faults.pop(method, None) or self._faults.pop("*", None)
        if fault == "hang":
            await self._ended.wait()
        if fault is not None:
            self._end(f"a planted fault ({fault}) in {method}")
        if fault == "integrity":
            raise SandboxIntegrity("a frame with a nonce that nobody asked for")
        if fault == "unresponsive":
            raise SandboxUnresponsive("no answer within the deadline")
        if fault is not None:
            raise SandboxDied(f"the guest ended in {method}")

    async def _played(self, request: ExecRequest) -> ExecResult:
        if isinstance(self._script, Mapping):
            not_found = exec_result(f"{request.argv[0]}: not found\n".encode(), exit_code=127)
            return self._script.get(request.argv, not_found)
        script = self._script
        # Trio refuses a thread's result that is a coroutine: hand it over in a tuple.
        (answer,) = await anyio.to_thread.run_sync(lambda: (script(self, request),))
        return await answer if inspect.isawaitable(answer) else answer

    async def _in_thread(self, operation: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(operation, limiter=self._one_at_a_time)

    def _end(self, reason: str) -> None:
        self._dead = self._dead or reason
        self._ended.set()


@dataclass(kw_only=True)
class FakeBackend:
    """Opens fake sandboxes as `open_sandbox` opens real ones, and keeps every one for a test to look at.

    Attributes:
        script: What commands answer, in every sandbox.
        start_fails: How many of the next openings go wrong.
        prepare: Called with each new sandbox before it is handed out, to plant faults.
    """

    script: Script | None = None
    start_fails: int = 0
    prepare: Callable[[FakeSandbox], None] | None = None
    opened: list[FakeSandbox] = field(default_factory=list)

    def __call__(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
        """Open one sandbox."""
        return self._open(spec)

    @asynccontextmanager
    async def _open(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        if self.start_fails:
            self.start_fails -= 1
            raise SandboxStartFailed("the fake sandbox was told not to start")
        fake = await anyio.to_thread.run_sync(partial(FakeSandbox, spec, script=self.script))
        async with fake as sandbox:
            self.opened.append(sandbox)
            if self.prepare is not None:
                self.prepare(sandbox)
            yield sandbox


def fake_open(spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
    """Open a fake sandbox that knows no command; usable wherever `open_sandbox` is."""
    return FakeBackend()(spec)


def _dispose(fd: int, root: Path) -> None:
    # Whoever lets a sandbox go may be an event loop, which must not wait for a tree to be removed; at the end
    # of the process there is no loop, and a new thread would not come to its end.
    if threading.main_thread().is_alive():
        threading.Thread(target=_remove, args=(fd, root), name=REMOVING).start()
        return
    _remove(fd, root)


def _remove(fd: int, root: Path) -> None:
    os.close(fd)
    shutil.rmtree(root, ignore_errors=True)

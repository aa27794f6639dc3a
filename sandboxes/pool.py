"""Sandboxes that are open before anybody needs them: a task leases one in the time of one question.

A sandbox is leased once and closed with its lease; nothing of one task is ever there for another. What waits
was opened for one spec, and only a task with that very spec gets it: with another workspace, cover or limit
it opens one of its own. The same path is another workspace once another directory has taken its place. A
sandbox that holds a copy of the tree as it was is not kept waiting.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

import anyio
import anyio.to_thread

from sandboxes.base import Sandbox, SandboxSpec
from sandboxes.errors import SandboxError
from sandboxes.open import open_sandbox

Opener: TypeAlias = Callable[[SandboxSpec], AbstractAsyncContextManager[Sandbox]]

_CLOSE_SECONDS = 10.0
_AFTER_SECONDS = 0.005


class _Directory(NamedTuple):
    """Which directory a path leads to; nothing where there is none."""

    device: int
    inode: int


class _Waiting(NamedTuple):
    sandbox: Sandbox
    context: AbstractAsyncContextManager[Sandbox]
    directory: _Directory

    async def is_fit(self, directory: _Directory) -> bool:
        """Whether it is over the directory that is meant now, and still answers."""
        if self.directory != directory:
            return False
        try:
            await self.sandbox.used_bytes()
        except SandboxError:
            return False
        return True

    async def close(self) -> None:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await self.context.__aexit__(None, None, None)


class WarmPool:
    """Keeps up to ``size`` sandboxes open for one spec while its context lasts.

    ``opener`` must allow that a sandbox is closed by another task than the one that opened it.
    """

    def __init__(self, spec: SandboxSpec, *, size: int = 1, opener: Opener = open_sandbox) -> None:
        self._spec = spec
        self._size = size
        self._opener = opener
        self._waiting: deque[_Waiting] = deque()
        self._wanted = anyio.Event()
        self._filled = anyio.Event()
        self._stack = AsyncExitStack()

    @property
    def waiting(self) -> int:
        """How many sandboxes could be leased now."""
        return len(self._waiting)

    async def filled(self) -> None:
        """Return when as many wait as could be opened."""
        while not self._filled.is_set():
            await self._filled.wait()

    @asynccontextmanager
    async def lease(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """Give a sandbox for a spec, a waiting one if there is one; leaving kills everything inside.

        Raises:
            SandboxUnavailable: This host cannot give what the spec asks for.
            SandboxStartFailed: The start went wrong.
        """
        leased = await self._take(spec)
        if leased is None:
            async with self._opener(spec) as sandbox:
                yield sandbox
            return
        try:
            yield leased.sandbox
        finally:
            await leased.close()

    async def __aenter__(self) -> Self:
        # Left in reverse: no more are opened, the last is open or was given up, all are closed.
        self._stack.push_async_callback(self._drain)
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        group.start_soon(self._keep_filled)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Without the error: the task group would put what is its user's own into a group.
        await self._stack.aclose()

    async def _take(self, spec: SandboxSpec) -> _Waiting | None:
        """Give the one that waits longest and still answers."""
        if spec != self._spec or not self._size:
            return None
        self._filled = anyio.Event()
        self._wanted.set()
        while self._waiting:
            found = self._waiting.popleft()
            fit = False
            try:
                fit = await found.is_fit(await _directory(spec))
            finally:
                if not fit:
                    await found.close()
            if fit:
                return found
        return None

    async def _keep_filled(self) -> None:
        while True:
            self._wanted = anyio.Event()
            while len(self._waiting) < self._size and await self._add():
                continue
            self._filled.set()
            await self._wanted.wait()
            # Whoever has just leased one goes first.
            await anyio.sleep(_AFTER_SECONDS)

    async def _add(self) -> bool:
        """Open one more; False when that failed or is of no use: it is tried again after the next lease."""
        # Looked at before: one that is replaced meanwhile is then found to be another.
        directory = await _directory(self._spec)
        try:
            context = self._opener(self._spec)
            sandbox = await context.__aenter__()
        except SandboxError:
            return False
        opened = _Waiting(sandbox, context, directory)
        if sandbox.identity.holds_snapshot:
            await opened.close()
            self._size = 0
            return False
        self._waiting.append(opened)
        return True

    async def _drain(self) -> None:
        while self._waiting:
            await self._waiting.pop().close()


async def _directory(spec: SandboxSpec) -> _Directory:
    try:
        status = await anyio.to_thread.run_sync(os.stat, spec.workspace)
    except OSError:
        return _Directory(0, 0)
    return _Directory(status.st_dev, status.st_ino)

"""What an engine still has of sandboxes that are dead: removed in the background, in bounded time.

Nobody waits for an engine to take a container apart in which nothing lives any more. The end of the process
does, and so does whoever looks for leftovers. What could not be removed is tried again, a few times, when
another removal has succeeded and at the end of the process; after that it is a leftover like that of a broker
that was killed.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sandboxes.errors import SandboxError

SETTLE_SECONDS: Final = 8.0
_THREADS: Final = 2
_MOST_TRIES: Final = 3

_lock = threading.Lock()
_remover: Remover | None = None


def remover() -> Remover:
    """Return this process's remover, started at first use and again after a fork."""
    global _remover
    with _lock:
        if _remover is None or _remover.owner != os.getpid():
            _remover = Remover()
            atexit.register(_remover.finish)
        return _remover


def settle(*, seconds: float = SETTLE_SECONDS) -> bool:
    """Wait until nothing is being removed any more, in this thread; False when that takes longer."""
    return remover().settle(seconds=seconds)


@dataclass(kw_only=True, slots=True)
class _Job:
    run: Callable[[], None]
    tries: int = 0


class Remover:
    """Threads that carry out removals and remember those which failed."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._failed: list[_Job] = []
        self._under_way = 0
        self._changed = threading.Condition()
        for number in range(_THREADS):
            threading.Thread(target=self._work, name=f"remit-remover-{number}", daemon=True).start()

    @property
    def failed(self) -> int:
        """How many removals have failed and wait to be tried again."""
        return len(self._failed)

    def submit(self, job: Callable[[], None]) -> None:
        """Have something removed; a ``SandboxError`` means that it is to be tried again."""
        self._put(_Job(run=job))

    def settle(self, *, seconds: float) -> bool:
        """Wait until nothing is under way; False when that takes longer."""
        deadline = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(
                lambda: self._under_way == 0, timeout=max(0.0, deadline - time.monotonic())
            )

    def finish(self) -> None:
        """Try once more what failed, and wait for the rest, for a while."""
        if self.owner != os.getpid():
            return
        self._retry()
        self.settle(seconds=SETTLE_SECONDS)

    def _put(self, job: _Job) -> None:
        with self._changed:
            self._under_way += 1
        self._jobs.put(job)

    def _retry(self) -> None:
        with self._changed:
            again, self._failed = self._failed, []
        for job in again:
            self._put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job.run()
                self._retry()
            except (SandboxError, OSError):
                job.tries += 1
                if job.tries < _MOST_TRIES:
                    with self._changed:
                        self._failed.append(job)
            finally:
                with self._changed:
                    self._under_way -= 1
                    self._changed.notify_all()

"""A process that its client cannot kill before it has put its run away.

Some clients send SIGTERM, close the pipes and kill the server's process group a few milliseconds later.
What the model wrote would be lost with it. So what the client starts, sees and kills is a guard that only
waits; the server is its child, in a session of its own, and is told by the kernel when the guard is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from types import FrameType

_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def sheltered(serve: Callable[[], int]) -> int:
    """Run ``serve`` in a child of its own session and return its exit code, in the guard and in the child.

    Call it while the process has one thread.
    """
    guard = os.getpid()
    server = os.fork()
    if server != 0:
        return _guarded(server)
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != guard:
        return 128 + signal.SIGTERM
    return serve()


def _guarded(server: int) -> int:
    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(server, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    _let_go_of_the_wire()
    _, status = os.waitpid(server, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _let_go_of_the_wire() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)

"""Signal processes of the commands' uid, all at once or those that belong to nobody any more."""

from __future__ import annotations

import errno
import os
import select
import time

from sandboxes.guest import watch
from sandboxes.guest.contained import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGKILL = 9
_END_SECONDS = 5.0
_PASS_MILLISECONDS = 1


def signal_all(settings: dict[str, Any], number: int) -> bool:
    """Send a signal to every process of the commands' uid at once; False when there is none.

    No fork can slip through: the kernel signals them in one go.
    """
    with owner.AsSignaller(settings["uid"]):
        try:
            os.kill(-1, number)
        except (ProcessLookupError, PermissionError):
            # The second one where there are others, of whom none may be signalled.
            return False
    return True


def end_all(settings: dict[str, Any]) -> None:
    """Kill every process of the commands' uid; nothing is left when this returns."""
    deadline = time.monotonic() + _END_SECONDS
    while signal_all(settings, _SIGKILL):
        _wait_a_moment(deadline)


def end_strays(settings: dict[str, Any], keepers: set[int]) -> None:
    """Kill what is below none of the keepers at work: for kernels that know no subreapers.

    A daemon of a command that still runs is taken for one that was left behind.
    """
    for usage in watch.usage_by_cell({os.getpid()}).values():
        mine = set(usage.pids) - {
            pid for found in watch.usage_by_cell(keepers).values() for pid in found.pids
        }
        for pid in mine - keepers:
            if _uid(pid) == settings["uid"]:
                try:
                    os.kill(pid, _SIGKILL)
                except ProcessLookupError:
                    continue


def _wait_a_moment(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise OSError(errno.ETIMEDOUT, "what commands left behind cannot be ended")
    select.poll().poll(_PASS_MILLISECONDS)
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            continue
    except ChildProcessError:
        return


def _uid(pid: int) -> int | None:
    try:
        with open("/proc/%d/status" % pid, "rb") as status:
            for line in status:
                if line.startswith(b"Uid:"):
                    return int(line.split()[1])
    except OSError:
        return None
    return None

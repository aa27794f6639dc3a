"""The parent that nothing of a command can outlive or signal; it serves one command after another.

A keeper is the child subreaper of its command: whatever the command starts stays below it, however often it
forks and detaches. It stays root, so that no command can reach it, and waits with a child that becomes the
command. When the command ends, the keeper ends what was left behind and only then reports.

Only a command that ended by itself and left nothing is followed by another one. The next child is forked
after that report, so it never lives beside anything that an earlier command of this keeper has started, and
it is root until it has its words.

Stopping and killing what a look at /proc shows is enough for all but a chain of processes that each fork and
exit faster than anybody looks. For that one everything of the commands' uid is stopped in a single kill(-1),
which no fork can slip through; what belongs to other commands then goes on.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]
import _socket
import errno
import os
import select
import time

from sandboxes.guest import report, system, watch
from sandboxes.guest.contained import sweep
from sandboxes.guest.contained.child import NEVER_BEGAN, become

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SIGKILL, _SIGUSR1, _SIGCONT, _SIGSTOP = 9, 10, 18, 19
_GENTLE_PASSES = 4
_PASS_MILLISECONDS = 1
_END_SECONDS = 5.0
_FORK_SECONDS = 5.0
# The guest may have no more (docker.config).
_MOST_DESCRIPTORS = 4096


_child = 0
_ended = False
_kill_asked = False


def keep(settings: dict[str, Any], orders_end: int, status: int, dressed: bool) -> NoReturn:
    """Be the keeper of one command after another; never returns."""
    try:
        _signal.signal(_SIGUSR1, _kill_child)
        system.close_all_but((orders_end, status), below=_MOST_DESCRIPTORS)
        system.fill_standard_descriptors()
        if settings["subreaper"]:
            system.set_child_subreaper()
        # For all that it will ever start: installing a filter takes a millisecond.
        os.umask(0o022)
        system.set_no_new_privileges()
        system.install_seccomp_filter(settings["seccomp"])
        channel = _socket.socket(fileno=orders_end)
        while _serve_one(settings, channel, status, dressed):
            dressed = False
    except OSError as error:
        report.write(status, report.FAILED, error.errno or errno.EIO)
    finally:
        os._exit(0)


def _serve_one(settings: dict[str, Any], channel: _socket.socket, status: int, dressed: bool) -> bool:
    """Wait with a child until it was a command and nothing of it is left; True when another may follow."""
    global _child, _ended
    _child, _ended = 0, False
    _child = _fork(status)
    if _child == 0:
        _signal.signal(_SIGUSR1, _signal.SIG_DFL)
        become(settings, channel, status, dressed)
    if _kill_asked:
        os.kill(_child, _SIGKILL)
    usage = _Usage()
    result = _reap_until_the_end(usage)
    left_behind = _end_the_rest(settings, usage)
    if _is_deserted(channel):
        return False
    # One that was killed may not have had its words: the next child would take them for its own.
    goes_on = os.WIFEXITED(result) and os.WEXITSTATUS(result) != NEVER_BEGAN
    goes_on = goes_on and not (left_behind or _kill_asked)
    kind = report.EXITED if goes_on else report.EXITED_LAST
    report.write(status, kind, result, usage.cpu_microseconds, usage.peak_bytes, left_behind)
    return goes_on


class _Usage:
    """What the processes of one command have used."""

    def __init__(self) -> None:
        self.cpu_microseconds = 0
        self.peak_bytes = 0

    def wait(self, options: int) -> tuple[int, int]:
        """Wait for a child and count it in; its pid, or 0, and how it ended."""
        while True:
            try:
                pid, result, cpu, peak = system.wait_for_any(options)
            except InterruptedError:
                continue
            self.cpu_microseconds += cpu
            self.peak_bytes = max(self.peak_bytes, peak)
            return pid, result


def _fork(status: int) -> int:
    """Fork; say so when for long there are as many processes as there may be, and end."""
    deadline = time.monotonic() + _FORK_SECONDS
    while True:
        try:
            return os.fork()
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        if _kill_asked or time.monotonic() > deadline:
            report.write(status, report.REFUSED, errno.EAGAIN)
            os._exit(0)
        select.poll().poll(_PASS_MILLISECONDS)


def _is_deserted(channel: _socket.socket) -> bool:
    """Whether the guest has let go of this keeper."""
    watcher = select.poll()
    watcher.register(channel.fileno(), 0)
    return bool(watcher.poll(0))


def _kill_child(_number: int, _frame: Any) -> None:
    global _kill_asked
    _kill_asked = True
    if _child and not _ended:
        try:
            os.kill(_child, _SIGKILL)
        except ProcessLookupError:
            # Collected in this very moment.
            return


def _reap_until_the_end(usage: _Usage) -> int:
    global _ended
    result = 0
    while not _ended:
        pid, result = usage.wait(0)
        _ended = pid == _child
    return result


def _end_the_rest(settings: dict[str, Any], usage: _Usage) -> int:
    """End everything below the keeper and return how many there were; nothing is left when this returns."""
    reaped = 0
    passes = 0
    deadline = time.monotonic() + _END_SECONDS
    while True:
        try:
            while usage.wait(os.WNOHANG)[0] != 0:
                reaped += 1
        except ChildProcessError:
            return reaped
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, "what a command left behind cannot be ended")
        if passes < _GENTLE_PASSES:
            _signal_below(_SIGSTOP)
            _signal_below(_SIGKILL)
        else:
            _end_while_all_stand_still(settings)
        passes += 1
        select.poll().poll(_PASS_MILLISECONDS)


def _signal_below(number: int) -> None:
    """Signal whatever is below this process now."""
    for pid in watch.usage_by_cell({os.getpid()})[os.getpid()].pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _end_while_all_stand_still(settings: dict[str, Any]) -> None:
    sweep.signal_all(settings, _SIGSTOP)
    _signal_below(_SIGKILL)
    sweep.signal_all(settings, _SIGCONT)

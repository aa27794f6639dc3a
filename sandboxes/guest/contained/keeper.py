"""One command's keeper: the parent that nothing of the command can outlive or signal.

A keeper is the child subreaper of its command: whatever the command starts stays below it, however often it
forks and detaches. It stays root, so that no command can reach it, and waits with a child that becomes the
command. When the command ends, the keeper ends what was left behind and only then reports.

Stopping and killing what a look at /proc shows is enough for all but a chain of processes that each fork and
exit faster than anybody looks. For that one everything of the commands' uid is stopped in a single kill(-1),
which no fork can slip through; what belongs to other commands then goes on.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]
import errno
import os
import select
import time

from sandboxes.guest import frames, system, watch
from sandboxes.guest.contained import owner, sweep
from sandboxes.guest.contained.report import EXITED, FAILED, NO_DIRECTORY, NO_EXEC, READY, STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SIGKILL, _SIGUSR1, _SIGCONT, _SIGSTOP = 9, 10, 18, 19
_DATA_SLACK_BYTES = 256 * 1024 * 1024
_GENTLE_PASSES = 4
_PASS_MILLISECONDS = 1
_END_SECONDS = 5.0
_OOM_SCORE = b"500"

_child = 0
_ended = False
_kill_asked = False


def keep(settings: dict[str, Any], go: int, status: int, output: int, source: int, dressed: bool) -> NoReturn:
    """Be the keeper of one command; never returns."""
    global _child
    try:
        _signal.signal(_SIGUSR1, _kill_child)
        if settings["subreaper"]:
            system.set_child_subreaper()
        _child = os.fork()
        if _child == 0:
            _wait_for_words(settings, go, status, output, source, dressed)
        if _kill_asked:
            os.kill(_child, _SIGKILL)
        _close_all_but((status,))
        _reap_until_the_end(settings, status)
    except OSError as error:
        _report(status, FAILED, error.errno or errno.EIO)
    finally:
        os._exit(0)


def _kill_child(_number: int, _frame: Any) -> None:
    global _kill_asked
    _kill_asked = True
    if _child and not _ended:
        try:
            os.kill(_child, _SIGKILL)
        except ProcessLookupError:
            # Collected in this very moment.
            return


def _reap_until_the_end(settings: dict[str, Any], status: int) -> None:
    global _ended
    result = 0
    while not _ended:
        pid, result = os.wait()
        _ended = pid == _child
    left_behind = _end_the_rest(settings)
    cpu, peak = system.children_usage()
    _report(status, EXITED, result, cpu, peak, left_behind)


def _end_the_rest(settings: dict[str, Any]) -> int:
    """End everything below the keeper and return how many there were; nothing is left when this returns."""
    reaped = 0
    passes = 0
    deadline = time.monotonic() + _END_SECONDS
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
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


def _wait_for_words(
    settings: dict[str, Any], go: int, status: int, output: int, source: int, dressed: bool
) -> NoReturn:
    """Become the command once its words have come; never returns."""
    try:
        _signal.signal(_SIGUSR1, _signal.SIG_DFL)
        os.setsid()
        _close_all_but((go, status, output, source))
        _limit(settings)
        # Takes a millisecond, which no command should have to wait for.
        system.set_no_new_privileges()
        system.install_seccomp_filter(settings["seccomp"])
        if dressed:
            owner.become_command(settings)
        _report(status, READY, os.getpid())
        words = _receive(go)
        if not dressed:
            owner.become_command(settings)
        _execute(words, output, source, status)
    except OSError as error:
        _report(status, FAILED, error.errno or errno.EIO)
    finally:
        os._exit(127)


def _limit(settings: dict[str, Any]) -> None:
    os.umask(0o022)
    _put("/proc/self/oom_score_adj", _OOM_SCORE)
    system.set_limit(system.RLIMIT_NOFILE, settings["open_files"])
    system.set_limit(system.RLIMIT_FSIZE, settings["file_bytes"])
    # The hard limit kills; the soft one says by SIGXCPU why.
    system.set_limit(system.RLIMIT_CPU, settings["cpu_seconds"], slack=1)
    # The control group holds the memory; this only bounds how far one process gets between two looks.
    system.set_limit(system.RLIMIT_DATA, 2 * settings["memory_bytes"] + _DATA_SLACK_BYTES)
    for resource in (system.RLIMIT_CORE, system.RLIMIT_MEMLOCK):
        system.set_limit(resource, 0)
    try:
        system.set_limit(system.RLIMIT_MSGQUEUE, 0)
    except PermissionError:
        # gVisor has no such limit, and no message queues.
        return


def _execute(words: dict[str, Any], output: int, source: int, status: int) -> None:
    """Replace this process by the command, or report why that cannot be."""
    try:
        os.chdir(system.fs_bytes(words["directory"]))
    except (OSError, ValueError) as error:
        _report(status, NO_DIRECTORY, getattr(error, "errno", None) or errno.EINVAL)
        return
    os.dup2(source if words["has_stdin"] else os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # One that had the wanted number already was not duplicated, and would be closed by the execve.
    for number in (0, 1, 2):
        os.set_inheritable(number, True)
    argv = [system.fs_bytes(word) for word in words["argv"]]
    variables = {system.fs_bytes(name): system.fs_bytes(text) for name, text in words["environment"].items()}
    _report(status, NO_EXEC, _execute_first(argv, variables))


def _execute_first(argv: list[bytes], variables: dict[bytes, bytes]) -> int:
    """Execute the first program of that name; returns an errno when there is none."""
    if b"/" in argv[0]:
        return _execute_one(argv[0], argv, variables)
    found = errno.ENOENT
    for directory in variables.get(b"PATH", b"").split(b":"):
        if directory:
            result = _execute_one(directory + b"/" + argv[0], argv, variables)
            if result not in (errno.ENOENT, errno.ENOTDIR):
                found = result
                if result != errno.EACCES:
                    break
    return found


def _execute_one(path: bytes, argv: list[bytes], variables: dict[bytes, bytes]) -> int:
    try:
        os.execve(path, argv, variables)
    except OSError as error:
        return error.errno or errno.EIO
    except ValueError:
        # A NUL byte or an "=" in a variable's name: no such command line exists.
        return errno.EINVAL


def _receive(go: int) -> dict[str, Any]:
    reader = frames.FrameReader()
    while True:
        count = os.readv(go, [reader.room()])
        if count == 0:
            os._exit(0)
        payload = reader.filled(count)
        if payload is not None:
            return frames.decode_payload(payload)


def _close_all_but(kept: tuple[int, ...]) -> None:
    low = 0
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 12)


def _put(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _report(status: int, kind: int, value: int, cpu: int = 0, peak: int = 0, left: int = 0) -> None:
    os.write(status, STATUS.pack(kind, value, cpu, peak, left))

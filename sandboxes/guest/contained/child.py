"""A keeper's child: waits as root for the words of a command and becomes it, without a way back."""

from __future__ import annotations

import errno
import os

from sandboxes.guest import orders, report, system
from sandboxes.guest.contained import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, NoReturn

# How a child ends that never was a command; one that ends so itself only has no successor.
NEVER_BEGAN = 125

_DATA_SLACK_BYTES = 256 * 1024 * 1024
_OOM_SCORE = b"500"


def become(settings: dict[str, Any], channel: _socket.socket, status: int, dressed: bool) -> NoReturn:
    """Become the command once its words have come; never returns."""
    try:
        os.setsid()
        _limit(settings)
        if dressed:
            owner.become_command(settings)
        report.write(status, report.READY, os.getpid())
        order = orders.receive(channel)
        if order is not None:
            if not dressed:
                owner.become_command(settings)
            _execute(order, status)
    except OSError as error:
        report.write(status, report.FAILED, error.errno or errno.EIO)
    finally:
        os._exit(NEVER_BEGAN)


def _limit(settings: dict[str, Any]) -> None:
    system.write_file("/proc/self/oom_score_adj", _OOM_SCORE)
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


def _execute(order: orders.Order, status: int) -> None:
    """Replace this process by the command, or report why that cannot be."""
    words = order.words
    try:
        os.chdir(system.fs_bytes(words["directory"]))
    except (OSError, ValueError) as error:
        report.write(status, report.NO_DIRECTORY, getattr(error, "errno", None) or errno.EINVAL)
        return
    os.dup2(os.open("/dev/null", os.O_RDONLY) if order.source is None else order.source, 0)
    os.dup2(order.output, 1)
    os.dup2(order.output, 2)
    argv = [system.fs_bytes(word) for word in words["argv"]]
    variables = {system.fs_bytes(name): system.fs_bytes(text) for name, text in words["environment"].items()}
    report.write(status, report.NO_EXEC, _execute_first(argv, variables))


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

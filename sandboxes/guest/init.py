"""PID 1 of a cell: runs one command after another, and says how each ended once nothing of it is left.

It gives up everything that a command may not have before the first one, so that what it starts has nothing
to give up. It has no children exactly when nothing but itself is alive in its PID namespace: that is what
it waits for before it reports an end.
"""

from __future__ import annotations

import _socket
import errno
import os

from sandboxes.guest import orders, prepare, report, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

UID = 1000
_DATA_SLACK_BYTES = 256 * 1024 * 1024


def serve(settings: dict[str, Any], orders_end: int, status: int) -> NoReturn:
    """Become PID 1 of the cell; never returns."""
    try:
        system.close_all_but((orders_end, status))
        system.fill_standard_descriptors()
        _enter()
        _confine(settings)
        report.write(status, report.READY, os.getpid())
        channel = _socket.socket(fileno=orders_end)
        while True:
            # The guest's end of the channel is the end of the cell.
            order = orders.receive(channel)
            if order is None:
                os._exit(0)
            _carry_out(order, status)
    except OSError as error:
        report.write(status, report.FAILED, error.errno or errno.EIO)
    finally:
        os._exit(0)


def _enter() -> None:
    """Map the one uid, and give the cell its own view of processes and none of the guest's area."""
    # A process that is not dumpable may not write its own maps.
    system.set_dumpable(True)
    system.write_file("/proc/self/setgroups", b"deny")
    system.write_file("/proc/self/uid_map", b"%d %d 1" % (UID, UID))
    system.write_file("/proc/self/gid_map", b"%d %d 1" % (UID, UID))
    system.set_dumpable(False)
    flags = system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC
    system.mount("proc", "/proc", "proc", flags)
    system.mount("tmpfs", prepare.AREA, "tmpfs", flags | system.MS_RDONLY, "size=4096,nr_inodes=1,mode=555")
    system.write_file("/proc/sys/user/max_user_namespaces", b"0")


def _confine(settings: dict[str, Any]) -> None:
    """Give up, for init and all it will ever start, everything a command may not have."""
    if settings["affinity"]:
        os.sched_setaffinity(0, settings["affinity"])
    os.umask(0o022)
    system.drop_bounding_set()
    # init itself counts as a process of this uid.
    system.set_limit(system.RLIMIT_NPROC, settings["pids"] + 1)
    system.set_limit(system.RLIMIT_NOFILE, settings["open_files"])
    system.set_limit(system.RLIMIT_FSIZE, settings["file_bytes"])
    # The hard limit kills; the soft one says by SIGXCPU why.
    system.set_limit(system.RLIMIT_CPU, settings["cpu_seconds"], slack=1)
    # The watcher enforces memory; this only bounds how far one process gets between two looks.
    system.set_limit(system.RLIMIT_DATA, 2 * settings["memory_bytes"] + _DATA_SLACK_BYTES)
    for resource in (system.RLIMIT_CORE, system.RLIMIT_MEMLOCK, system.RLIMIT_MSGQUEUE):
        system.set_limit(resource, 0)
    system.keep_capabilities(())
    system.set_no_new_privileges()
    system.install_seccomp_filter(settings["seccomp"])


def _carry_out(order: orders.Order, status: int) -> None:
    child = _start(order, status)
    order.close()
    if child is None:
        report.write(status, report.EXITED, 0)
    else:
        _reap_until(child, status)


def _reap_until(child: int, status: int) -> None:
    """Wait for the command, end whatever it leaves behind, and only then say how it ended."""
    result, left_behind = 0, -1
    cpu_seconds, peak_kilobytes = 0.0, 0
    try:
        while True:
            pid, ended, used = os.wait3(0)
            cpu_seconds += used.ru_utime + used.ru_stime
            peak_kilobytes = max(peak_kilobytes, used.ru_maxrss)
            # Once collected, its number may be another's.
            if pid == child and left_behind < 0:
                result, left_behind = ended, 0
                _kill_the_rest()
            elif left_behind >= 0:
                left_behind += 1
    except ChildProcessError:
        cpu_microseconds = int(cpu_seconds * 1e6)
        report.write(
            status, report.EXITED, result, cpu_microseconds, peak_kilobytes * 1024, max(0, left_behind)
        )


def _kill_the_rest() -> None:
    try:
        os.kill(-1, system.SIGKILL)
    except ProcessLookupError:
        return


def _start(order: orders.Order, status: int) -> int | None:
    """Start the command and return its pid here, or report why it cannot be started."""
    words = order.words
    actions: list[Any] = [(os.POSIX_SPAWN_DUP2, order.output, 1), (os.POSIX_SPAWN_DUP2, order.output, 2)]
    if order.source is not None:
        actions.append((os.POSIX_SPAWN_DUP2, order.source, 0))
    else:
        actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
    try:
        os.chdir(system.fs_bytes(words["directory"]))
    except (OSError, ValueError) as error:
        report.write(status, report.NO_DIRECTORY, getattr(error, "errno", None) or errno.EINVAL)
        return None
    found = _spawn_first(words["argv"], words["environment"], actions)
    os.chdir("/")
    if found > 0:
        return found
    report.write(status, report.NO_EXEC, -found)
    return None


def _spawn_first(argv: list[str], environment: dict[str, str], actions: list[Any]) -> int:
    """Start the first program of that name; the pid, or a negative errno when there is none."""
    words = [system.fs_bytes(word) for word in argv]
    variables = {system.fs_bytes(name): system.fs_bytes(value) for name, value in environment.items()}
    name = words[0]
    if b"/" in name:
        return _spawn(name, words, variables, actions)
    found = -errno.ENOENT
    for directory in variables.get(b"PATH", b"").split(b":"):
        if directory:
            result = _spawn(directory + b"/" + name, words, variables, actions)
            if result not in (-errno.ENOENT, -errno.ENOTDIR):
                found = result
                if result != -errno.EACCES:
                    break
    return found


def _spawn(path: bytes, words: list[bytes], variables: dict[bytes, bytes], actions: list[Any]) -> int:
    # No page table is copied for this, which a fork of init would cost.
    try:
        return os.posix_spawn(path, words, variables, file_actions=actions, setsid=True)
    except OSError as error:
        return -(error.errno or errno.EIO)
    except ValueError:
        # A NUL byte or an "=" in a variable's name: no such command line exists.
        return -errno.EINVAL

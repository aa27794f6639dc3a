"""One command's own namespaces: made and parked ahead of the command, gone with it.

A cell is an init: PID 1 of a nested PID namespace, not dumpable, which has given up everything a command may
not have and waits for the command's words. Running a command then costs one message and one spawn. When the
command ends, init kills whatever it left behind, reports the status and exits.
"""

from __future__ import annotations

import errno
import os
import struct

from sandboxes.guest import frames, prepare, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

READY, FAILED, NO_DIRECTORY, NO_EXEC, EXITED = 1, 2, 3, 4, 5
STATUS = struct.Struct("=BiQQI")

# With an IPC namespace of its own too: the settings of the sandbox's one could be written by every command.
_NAMESPACES = system.CLONE_NEWUSER | system.CLONE_NEWPID | system.CLONE_NEWNS | system.CLONE_NEWIPC
_UID = 1000
_DATA_SLACK_BYTES = 256 * 1024 * 1024


class Cell:
    """The guest's end of a cell."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.ready = False
        self.reaped = False
        self.failure: int | None = None
        self.cpu_microseconds = 0
        self.peak_bytes = 0
        self.left_behind = 0
        go_read, self.go = os.pipe()
        self.status, status_write = os.pipe()
        self.output, output_write = os.pipe()
        input_read, self.input = os.pipe()
        inside = (go_read, status_write, output_write, input_read)
        self.pid = system.clone(_NAMESPACES)
        if self.pid == 0:
            _init(settings, *inside)
        self.pidfd = system.pidfd_open(self.pid)
        for descriptor in inside:
            os.close(descriptor)
        for descriptor in (self.status, self.output, self.input):
            os.set_blocking(descriptor, False)

    def start(self, words: dict[str, Any]) -> None:
        """Send the waiting child its command."""
        data = memoryview(frames.encode_frame(words))
        while data:
            data = data[os.write(self.go, data) :]
        os.close(self.go)
        self.go = -1

    def kill(self) -> None:
        """Kill everything in the cell; its end shows on ``pidfd``."""
        system.pidfd_kill(self.pidfd)

    def messages(self) -> list[tuple[int, int]]:
        """Return what init and child have reported since the last call."""
        found: list[tuple[int, int]] = []
        while True:
            try:
                raw = os.read(self.status, STATUS.size)
            except BlockingIOError:
                return found
            if len(raw) < STATUS.size:
                return found
            kind, value, cpu, peak, left = STATUS.unpack(raw)
            if kind == READY:
                self.ready = True
            elif kind == FAILED:
                self.failure = value
            elif kind == EXITED:
                self.cpu_microseconds, self.peak_bytes, self.left_behind = cpu, peak, left
            found.append((kind, value))

    def reap(self) -> bool:
        """Collect init once it has ended; False while it lives."""
        if not self.reaped:
            pid, _, used = os.wait4(self.pid, os.WNOHANG)
            if pid == 0:
                return False
            self.reaped = True
            if not self.cpu_microseconds:
                self.cpu_microseconds = int((used.ru_utime + used.ru_stime) * 1e6)
                self.peak_bytes = used.ru_maxrss * 1024
        return True

    def close_input(self) -> None:
        """Let the command read end-of-file."""
        if self.input >= 0:
            os.close(self.input)
            self.input = -1

    def close(self) -> None:
        """Close every descriptor of a cell that has ended."""
        self.close_input()
        for descriptor in (self.go, self.status, self.output, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)


def _init(settings: dict[str, Any], go: int, status: int, output: int, source: int) -> NoReturn:
    """Become PID 1 of the cell; never returns."""
    try:
        _close_all_but((go, status, output, source))
        _enter()
        _confine(settings)
        _report(status, READY, os.getpid())
        words = _receive(go)
        child = _start(words, output, source, status)
        if child is not None:
            _close_all_but((status,))
            _reap_until(child, status)
    except OSError as error:
        _report(status, FAILED, error.errno or errno.EIO)
    finally:
        os._exit(0)


def _close_all_but(kept: tuple[int, ...]) -> None:
    low = 0
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 16)


def _enter() -> None:
    """Map the one uid, and give the cell its own view of processes and none of the guest's area."""
    # A process that is not dumpable may not write its own maps.
    system.set_dumpable(True)
    _put("/proc/self/setgroups", b"deny")
    _put("/proc/self/uid_map", b"%d %d 1" % (_UID, _UID))
    _put("/proc/self/gid_map", b"%d %d 1" % (_UID, _UID))
    system.set_dumpable(False)
    flags = system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC
    system.mount("proc", "/proc", "proc", flags)
    system.mount("tmpfs", prepare.AREA, "tmpfs", flags | system.MS_RDONLY, "size=4096,nr_inodes=1,mode=555")
    _put("/proc/sys/user/max_user_namespaces", b"0")


def _put(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


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


def _reap_until(child: int, status: int) -> None:
    """Wait for the command, end whatever it leaves behind, and only then say how it ended.

    When the report is out, nothing but init itself is alive here. Taking the namespaces down can be slow, and
    nobody has to wait for that.
    """
    result = 0
    left_behind = -1
    try:
        while True:
            pid, ended = os.wait()
            if pid == child:
                result, left_behind = ended, 0
                _kill_the_rest()
            elif left_behind >= 0:
                left_behind += 1
    except ChildProcessError:
        cpu, peak = system.children_usage()
        _report(status, EXITED, result, cpu, peak, max(0, left_behind))


def _kill_the_rest() -> None:
    try:
        os.kill(-1, system.SIGKILL)
    except ProcessLookupError:
        return


def _report(status: int, kind: int, value: int, cpu: int = 0, peak: int = 0, left: int = 0) -> None:
    os.write(status, STATUS.pack(kind, value, cpu, peak, left))


def _start(words: dict[str, Any], output: int, source: int, status: int) -> int | None:
    """Start the command and return its pid here, or report why it cannot be started."""
    try:
        os.chdir(system.fs_bytes(words["directory"]))
    except (OSError, ValueError) as error:
        _report(status, NO_DIRECTORY, getattr(error, "errno", None) or errno.EINVAL)
        _report(status, EXITED, 0)
        return None
    actions: list[Any] = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    if words["has_stdin"]:
        actions.append((os.POSIX_SPAWN_DUP2, source, 0))
    else:
        actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
    found = _spawn_first(words["argv"], words["environment"], actions)
    if found > 0:
        return found
    _report(status, NO_EXEC, -found)
    _report(status, EXITED, 0)
    return None


def _receive(go: int) -> dict[str, Any]:
    reader = frames.FrameReader()
    while True:
        count = os.readv(go, [reader.room()])
        if count == 0:
            os._exit(0)
        payload = reader.filled(count)
        if payload is not None:
            return frames.decode_payload(payload)


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

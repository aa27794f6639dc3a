"""System calls that Python's standard library does not offer, for x86-64 and AArch64.

They go through the extension module below ctypes, because importing ctypes takes a tenth of the whole start.
"""

from __future__ import annotations

import _ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
SIGCHLD = 17
SIGKILL = 9

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096

RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 2, 4, 8

RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_CORE, RLIMIT_NPROC = 0, 1, 2, 4, 6
RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE = 7, 8, 12

CAP_SYS_PTRACE = 19

_RENAME_NOREPLACE = 1
_F_SETPIPE_SZ = 1031
_STATUS_BYTES, _RUSAGE_BYTES = 4, 144
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 22, 24, 38
_PR_SET_CHILD_SUBREAPER = 36
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg] # noqa: SLF001
    _type_ = "l"


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg] # noqa: SLF001
    _type_ = "i"


class _Character(_ctypes._SimpleCData):  # type: ignore[type-arg] # noqa: SLF001
    _type_ = "c"


class _Function(_ctypes.CFuncPtr):
    # The GIL stays held: a clone that returned into Python without it would wait for a lock nobody releases.
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


class _IntFunction(_ctypes.CFuncPtr):
    # Read as a long, the int -1 of some C libraries is 4294967295, and no failure is ever seen.
    _flags_ = _Function._flags_
    _restype_ = _Int


def _function(name: str, kind: Any) -> Any:
    program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return kind(_ctypes.dlsym(program, name))


_syscall = _function("syscall", _Function)
_mount = _function("mount", _IntFunction)
_prctl = _function("prctl", _IntFunction)
_fcntl = _function("fcntl", _IntFunction)

_ARM = os.uname().machine == "aarch64"
_NR_CLONE = 220 if _ARM else 56
_NR_UNSHARE = 97 if _ARM else 272
_NR_PRLIMIT = 261 if _ARM else 302
_NR_WAIT4 = 260 if _ARM else 61
_NR_CAPSET = 91 if _ARM else 126
_NR_RENAMEAT2 = 276 if _ARM else 316
_NR_PIDFD_SEND_SIGNAL = 424
_NR_PIDFD_OPEN = 434
_NR_OPENAT2 = 437


def _check(result: int, what: str) -> int:
    if result < 0:
        number = _ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare_mounts() -> None:
    """Give this process a mount namespace of its own."""
    _check(_syscall(_NR_UNSHARE, CLONE_NEWNS), "unshare")


def mount(source: str, target: str | bytes, kind: str | None, flags: int, options: str = "") -> None:
    """Mount; paths may hold surrogate escapes."""
    raw_target = target if isinstance(target, bytes) else fs_bytes(target)
    raw_kind = None if kind is None else kind.encode()
    raw_options = options.encode("utf-8", "surrogateescape") if options else None
    result = _mount(fs_bytes(source), raw_target, raw_kind, _Long(flags), raw_options)
    _check(result, "mount " + raw_target.decode("utf-8", "surrogateescape"))


def fs_bytes(path: str) -> bytes:
    """Return the bytes that a path on the wire stands for, whatever this process's locale is."""
    return path.encode("utf-8", "surrogateescape")


def clone(flags: int) -> int:
    """Fork with new namespaces; 0 in the child, as fork."""
    return _check(_syscall(_NR_CLONE, flags | SIGCHLD, 0, 0, 0, 0), "clone")


def set_dumpable(dumpable: bool) -> None:
    """Say whether others of this uid may look into this process."""
    _check(_prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0), "PR_SET_DUMPABLE")


def set_no_new_privileges() -> None:
    """Make every later execve unable to gain privileges."""
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def set_child_subreaper() -> None:
    """Become the parent of every orphan below this process."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def drop_bounding_set() -> None:
    """Empty the capability bounding set."""
    for capability in range(_LAST_CAPABILITY + 1):
        if _prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break


def keep_capabilities(capabilities: tuple[int, ...]) -> None:
    """Give up every effective, permitted and inheritable capability but these."""
    mask = sum(1 << capability for capability in capabilities)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    sets = struct.pack("IIIIII", low, low, 0, high, high, 0)
    _check(_syscall(_NR_CAPSET, header, sets), "capset")


def install_seccomp_filter(program: bytes) -> None:
    """Put every later system call of this process and its children under a classic BPF program."""
    code = (_Character * len(program)).from_buffer_copy(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, _ctypes.addressof(code))
    _check(_prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0), "PR_SET_SECCOMP")


def set_limit(resource: int, ceiling: int, slack: int = 0) -> None:
    """Set a resource's soft limit, and its hard limit ``slack`` above, for this process and its children."""
    _check(
        _syscall(_NR_PRLIMIT, 0, resource, struct.pack("QQ", ceiling, ceiling + slack), None),
        "setrlimit %d" % resource,
    )


def wait_for_any(options: int) -> tuple[int, int, int, int]:
    """Wait for a child: its pid, how it ended, its CPU time in microseconds and its largest resident bytes.

    What os.wait4 does, without the module that it imports.

    Raises:
        InterruptedError: By a signal.
        ChildProcessError: There is no child.
    """
    status = (_Character * _STATUS_BYTES)()
    raw = (_Character * _RUSAGE_BYTES)()
    pid = _check(_syscall(_NR_WAIT4, -1, status, options, raw), "wait4")
    (result,) = struct.unpack("=i", status)
    user_seconds, user_micros, system_seconds, system_micros, largest = struct.unpack_from("=5q", raw)
    cpu = (user_seconds + system_seconds) * 1000000 + user_micros + system_micros
    return pid, result, cpu, largest * 1024


def pidfd_open(pid: int) -> int:
    """Return a descriptor that stands for a process and becomes readable when it ended."""
    return _check(_syscall(_NR_PIDFD_OPEN, pid, 0), "pidfd_open")


def pidfd_kill(pidfd: int) -> None:
    """Send SIGKILL to a process; one that ended already is no error."""
    try:
        _check(_syscall(_NR_PIDFD_SEND_SIGNAL, pidfd, SIGKILL, None, 0), "pidfd_send_signal")
    except ProcessLookupError:
        return


def widen_pipe(descriptor: int, size: int) -> None:
    """Let a pipe hold more, as far as this user may still have it; one that stays as it is works as well."""
    _fcntl(descriptor, _F_SETPIPE_SZ, size)


def openat2(directory: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """Open a path relative to a directory under the kernel's own resolution rules."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _check(_syscall(_NR_OPENAT2, directory, path, how, len(how)), "openat2")


def rename_without_replacing(directory: int, old: bytes, new: bytes) -> None:
    """Rename within a directory; fails with EEXIST when the new name is taken."""
    _check(_syscall(_NR_RENAMEAT2, directory, old, directory, new, _RENAME_NOREPLACE), "renameat2")


def shell() -> str:
    """Return the shell that commands are written for: bash where there is one."""
    return "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"


def close_all_but(kept: tuple[int, ...], below: int = 1 << 16) -> None:
    """Close every descriptor but these; each costs a call where the kernel does not close ranges."""
    low = 0
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, below)


def fill_standard_descriptors() -> None:
    """Keep 0, 1 and 2 taken, so that no descriptor which is to become one of them has such a number."""
    for _ in range(3):
        os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


def write_file(path: str, data: bytes) -> None:
    """Write to a file of the kernel's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)

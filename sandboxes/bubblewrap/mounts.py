"""System calls for the thread that stages mounts when the broker is root. x86-64 and AArch64, by ctypes."""

from __future__ import annotations

import ctypes
import os
import platform
import signal

CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_NOSUID_NODEV = 6
_MOUNT_ATTR_IDMAP = 0x00100000
_MS_REC, _MS_SLAVE = 0x4000, 0x80000
_MS_NOSUID_NODEV = 6
_MS_REMOUNT_BIND_RDONLY = 32 | 4096 | 1
_MNT_DETACH = 2
_KEYCTL_JOIN_SESSION_KEYRING = 1
_PR_SET_PDEATHSIG = 1

_ARM = platform.machine() == "aarch64"
_NR_CLONE = 220 if _ARM else 56
_NR_KEYCTL = 219 if _ARM else 250
_NR_OPEN_TREE, _NR_MOVE_MOUNT, _NR_MOUNT_SETATTR = 428, 429, 442

# PyDLL keeps the GIL: a cloned child has no other thread that could ever hand it back.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def join_new_session_keyring() -> bool:
    """Leave the login session's keys behind, for this thread and what it starts; False if there are none."""
    return bool(_libc.syscall(_NR_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0) >= 0)


def enter_private_mount_namespace() -> None:
    """Give this thread mounts of its own; the host's later mounts still arrive, none of ours leaves."""
    _check(_libc.unshare(CLONE_NEWNS | CLONE_FS), "unshare")
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None), "mount --make-rslave /")


def mount_tmpfs(place: str, options: str) -> None:
    """Mount an empty tmpfs."""
    flags = ctypes.c_ulong(_MS_NOSUID_NODEV)
    _check(
        _libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, options.encode()), f"mount tmpfs {place}"
    )


def clone_tree(source: str, *, recursive: bool = True) -> int:
    """Return a detached copy of the mounts at and below a directory, or of the first alone."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _check(_libc.syscall(_NR_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags), f"open_tree {source}")


def restrict_tree(tree: int, *, identity_map: int | None) -> None:
    """Make a detached tree read-only, its owners shown through a user namespace's map if one is given."""
    recursive = 0 if identity_map is not None else _AT_RECURSIVE
    attributes = _MountAttributes(_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID_NODEV, 0, 0, 0)
    if identity_map is not None:
        attributes.attr_set |= _MOUNT_ATTR_IDMAP
        attributes.userns_fd = identity_map
    size = ctypes.sizeof(attributes)
    arguments = (tree, b"", _AT_EMPTY_PATH | recursive, ctypes.byref(attributes), size)
    _check(_libc.syscall(_NR_MOUNT_SETATTR, *arguments), "mount_setattr")


def attach_tree(tree: int, place: str) -> None:
    """Attach a detached tree at a directory."""
    arguments = (tree, b"", _AT_FDCWD, os.fsencode(place), _MOVE_MOUNT_F_EMPTY_PATH)
    _check(_libc.syscall(_NR_MOVE_MOUNT, *arguments), f"move_mount {place}")


def make_read_only(place: str) -> None:
    """Let nothing be written through a mount any more."""
    flags = ctypes.c_ulong(_MS_REMOUNT_BIND_RDONLY | _MS_NOSUID_NODEV)
    _check(_libc.mount(None, os.fsencode(place), None, flags, None), f"remount {place}")


def detach(place: str) -> None:
    """Take a mount away; who uses it keeps it."""
    _check(_libc.umount2(os.fsencode(place), _MNT_DETACH), f"umount {place}")


def identity_namespace(*, owner: tuple[int, int], shown_as: int) -> int:
    """Return a user namespace, as a descriptor, that shows a tree's owner and group as one other id."""
    child = _check(_libc.syscall(_NR_CLONE, CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0), "clone")
    if child == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        while True:
            _libc.pause()
    try:
        for name, number in (("uid_map", owner[0]), ("gid_map", owner[1])):
            _put(f"/proc/{child}/{name}", f"{number} {shown_as} 1")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _put(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)

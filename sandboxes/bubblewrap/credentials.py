"""Start a program as another user without copying the broker: credentials of one thread, for one moment.

A child that changes its own uid has to be forked, and a fork copies the page tables of the whole broker,
which takes longer than bubblewrap itself. Linux keeps credentials for each thread (credentials(7)): this
thread takes the other uid, the child is made by vfork with it, and exec leaves nothing of root in the child,
not even the saved uid. The C library's functions would change every thread of the process; the system calls
do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

from sandboxes.errors import SandboxUnavailable

# setresuid, setresgid, setgroups: asm/unistd_64.h, asm-generic/unistd.h.
_NUMBERS = {"x86_64": (117, 119, 116), "aarch64": (147, 149, 159)}
_KEEP = -1
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


@contextlib.contextmanager
def thread_user(uid: int) -> Iterator[None]:
    """Be ``uid``, with its group and no others, in this thread; be root again after it.

    Only for a thread that nothing else runs on. When root cannot be had back the process ends: a broker with
    a thread that is somebody else is not one that may go on.

    Raises:
        SandboxUnavailable: This machine's system calls are not known, or the kernel refuses the uid.
    """
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        raise SandboxUnavailable(f"started by root on {platform.machine()}", hint="run as an ordinary user")
    set_uids, set_gids, set_groups = numbers
    uids, gids, groups = os.getresuid(), os.getresgid(), os.getgroups()
    dumpable = _prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    # An ambient capability would go with the saved uid through exec.
    _check(_prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    with contextlib.ExitStack() as undo:
        # The kernel takes this from the whole process when a uid changes.
        undo.callback(_prctl, _PR_SET_DUMPABLE, dumpable, 0, 0, 0)
        _check(_syscall(set_groups, 0, None))
        undo.callback(_must, set_groups, len(groups), (ctypes.c_uint32 * len(groups))(*groups))
        _check(_syscall(set_gids, uid, uid, _KEEP))
        undo.callback(_must, set_gids, *gids)
        # The saved uid stays root's, or there would be no way back; exec takes it from the child.
        _check(_syscall(set_uids, uid, uid, 0))
        undo.callback(_must, set_uids, *uids)
        yield


def _must(number: int, *arguments: object) -> None:
    if _syscall(number, *arguments) < 0:
        os.abort()


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise SandboxUnavailable(
            f"started by root without the right to be another user ({os.strerror(code)})",
            hint="run as an ordinary user",
        )


_library = ctypes.CDLL(None, use_errno=True)
_prctl = _library.prctl
_syscall = _library.syscall
_syscall.restype = ctypes.c_long

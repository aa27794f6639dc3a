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
    try:
        _call(set_groups, 0, None)
        _call(set_gids, uid, uid, _KEEP)
        # The saved uid stays root's, or there would be no way back; exec takes it from the child.
        _call(set_uids, uid, uid, 0)
        yield
    finally:
        try:
            _call(set_uids, *uids)
            _call(set_gids, *gids)
            _call(set_groups, len(groups), (ctypes.c_uint32 * len(groups))(*groups))
        except SandboxUnavailable:
            os.abort()
        # The kernel has taken this from the whole process when the uid changed.
        _prctl(_PR_SET_DUMPABLE, dumpable, 0, 0, 0)


def _call(number: int, *arguments: object) -> None:
    if _syscall(number, *arguments) < 0:
        code = ctypes.get_errno()
        raise SandboxUnavailable(
            f"started by root without the right to be another user ({os.strerror(code)})",
            hint="run as an ordinary user",
        )


_library = ctypes.CDLL(None, use_errno=True)
_prctl = _library.prctl
_syscall = _library.syscall
_syscall.restype = ctypes.c_long

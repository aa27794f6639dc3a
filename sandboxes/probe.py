"""Find out which backends this host can use, by trying, and what to do about those that it cannot."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sandboxes.base import BackendReport
from sandboxes.bubblewrap.binary import RECOMMENDED, find_binary
from sandboxes.bubblewrap.staging import sandbox_uid
from sandboxes.errors import SandboxUnavailable
from sandboxes.seccomp import build_filter

OLDEST_KERNEL = (5, 12)
TMPFS_ATTRIBUTES_KERNEL = (6, 6)

_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_DEBIAN_SWITCH = Path("/proc/sys/kernel/unprivileged_userns_clone")
_NAMESPACE_COUNT = Path("/proc/sys/user/max_user_namespaces")
_TRIAL_SECONDS = 10
# Runs as the uid that bubblewrap will have: user, mount, PID and network namespaces at once.
_TRIAL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
uid = {uid!r}
if uid is not None:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
if libc.unshare(0x10000000 | 0x20000000 | 0x20000 | 0x40000000) != 0:
    raise SystemExit(os.strerror(ctypes.get_errno()))
"""


def probe() -> tuple[BackendReport, ...]:
    """Report on every backend; nothing of a trial is left behind."""
    return (_bubblewrap(), _docker())


def _bubblewrap() -> BackendReport:
    details = {"kernel": platform.release(), "machine": platform.machine(), "uid": str(os.geteuid())}
    try:
        _check_kernel()
        build_filter(platform.machine())
        binary = find_binary()
        details["program"] = str(binary.path)
        details["sandbox_uid"] = str(sandbox_uid() if os.geteuid() == 0 else os.geteuid())
        _check_namespaces()
    except SandboxUnavailable as error:
        return BackendReport(
            backend="bubblewrap",
            usable=False,
            version=None,
            reason=str(error),
            hint=error.hint,
            details=details,
        )
    return BackendReport(
        backend="bubblewrap",
        usable=True,
        version=binary.version_text,
        reason=None,
        hint=None,
        details=details,
        warnings=tuple(_warnings(binary.version)),
    )


def _docker() -> BackendReport:
    if importlib.util.find_spec("docker") is None:
        return BackendReport(
            backend="docker",
            usable=False,
            version=None,
            reason="the Docker SDK for Python is not installed",
            hint="pip install 'remit[docker]'",
        )
    # Optional, and slow to import.
    from sandboxes.docker.probe import report

    return report()


def _check_kernel() -> None:
    if platform.system() != "Linux":
        raise SandboxUnavailable("bubblewrap needs Linux", hint="run in a Linux virtual machine")
    if _kernel() < OLDEST_KERNEL:
        raise SandboxUnavailable(
            f"kernel {platform.release()} is older than {'.'.join(map(str, OLDEST_KERNEL))}",
            hint="use a newer kernel",
        )


def _check_namespaces() -> None:
    """Try what bubblewrap does first, in a process of its own and as the uid it will have."""
    said = _namespace_trial()
    if said is None:
        return
    for path, value, sentence, hint in _SWITCHES:
        if _text(path) == value:
            raise SandboxUnavailable(sentence, hint=hint)
    raise SandboxUnavailable(
        f"namespaces cannot be made here: {said}",
        hint="check the container's seccomp profile and user.max_user_namespaces",
    )


def _namespace_trial() -> str | None:
    uid = sandbox_uid() if os.geteuid() == 0 else None
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRIAL.format(uid=uid)],
            env={},
            cwd="/",
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if answer.returncode == 0 else answer.stderr.decode("utf-8", "replace").strip()[-200:]


def _kernel() -> tuple[int, ...]:
    numbers = platform.release().split("-")[0].split(".")
    return tuple(int(number) for number in numbers[:2] if number.isdigit())


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _warnings(version: tuple[int, ...]) -> Iterator[str]:
    if version < RECOMMENDED:
        yield f"bubblewrap {'.'.join(map(str, version))} is older than 0.12.0, which mends known faults"
    if _kernel() < TMPFS_ATTRIBUTES_KERNEL:
        yield "kernels before 6.6 cannot keep an overlay on tmpfs: the workspace is copied at each start"


_SWITCHES = (
    (
        _NAMESPACE_COUNT,
        "0",
        "user namespaces are switched off: user.max_user_namespaces is 0",
        "sysctl user.max_user_namespaces=10000",
    ),
    (
        _DEBIAN_SWITCH,
        "0",
        "user namespaces are switched off for ordinary users",
        "sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        _APPARMOR,
        "1",
        "AppArmor restricts user namespaces on this host",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap",
    ),
)

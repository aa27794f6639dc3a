"""Files outside the workspace that a run has no business with: fingerprinted before, compared after."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from executor.errors import RemitUnenforceable

_MAX_ENTRIES: Final = 10_000
_MAX_BYTES: Final = 1024 * 1024 * 1024
ABSENT: Final = "absent"


def fingerprints(paths: Sequence[str], *, home: Path | None = None) -> dict[str, str]:
    """Fingerprint each path: content, type, mode and owner; directories with all that is below.

    Raises:
        RemitUnenforceable: A path cannot be read, or holds more than can be compared in reasonable time.
    """
    return {path: _fingerprint(path, home or Path.home()) for path in paths}


def changed(before: Mapping[str, str], *, home: Path | None = None) -> tuple[str, ...]:
    """Name the paths that are not as they were. What cannot be read any more has changed."""
    return tuple(path for path, seen in before.items() if _now(path, home or Path.home()) != seen)


def _now(path: str, home: Path) -> str | None:
    try:
        return _fingerprint(path, home)
    except RemitUnenforceable:
        return None


def _fingerprint(path: str, home: Path) -> str:
    place = _expanded(path, home)
    digest = hashlib.sha256()
    try:
        for entry in _entries(place):
            digest.update(_described(entry, str(entry.relative_to(place))))
    except FileNotFoundError:
        return ABSENT
    except OSError as error:
        raise RemitUnenforceable(
            f"tripwires: {path}: {error.strerror or error}", hint="name a file that this user can read"
        ) from error
    return f"sha256:{digest.hexdigest()}"


def _expanded(path: str, home: Path) -> Path:
    if path == "~" or path.startswith("~/"):
        return home / path[2:]
    place = Path(path)
    if not place.is_absolute():
        raise RemitUnenforceable(f"tripwires: {path}: not an absolute path", hint="start it with / or ~/")
    return place


def _entries(place: Path) -> Iterator[Path]:
    yield place
    if place.is_symlink() or not place.is_dir():
        return
    count = 0
    for folder, folders, files in os.walk(place):
        folders.sort()
        for name in sorted(folders + files):
            count += 1
            if count > _MAX_ENTRIES:
                raise RemitUnenforceable(
                    f"tripwires: {place}: more than {_MAX_ENTRIES} files", hint="name the files that matter"
                )
            yield Path(folder, name)


def _described(entry: Path, name: str) -> bytes:
    seen = entry.lstat()
    parts = [name, stat.S_IFMT(seen.st_mode), stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid]
    if stat.S_ISLNK(seen.st_mode):
        parts += [os.readlink(entry), _content(entry) if entry.is_file() else ""]
    if stat.S_ISREG(seen.st_mode):
        parts.append(_content(entry))
    return repr(parts).encode("utf-8", "surrogateescape")


def _content(entry: Path) -> str:
    with entry.open("rb") as file:
        if os.fstat(file.fileno()).st_size > _MAX_BYTES:
            raise RemitUnenforceable(
                f"tripwires: {entry}: larger than {_MAX_BYTES} bytes", hint="name a smaller file"
            )
        return hashlib.file_digest(file, "sha256").hexdigest()

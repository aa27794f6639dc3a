"""The control groups that hold a process, read on this host; version 1 and version 2."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """What the control groups of a process allow it; None where there is no limit or none can be read."""

    memory_bytes: int | None
    pids: int | None
    cpus: float | None


def read_groups(pid: int) -> Groups:
    """Return the limits of the control groups that a process is in."""
    paths = _paths(pid)
    if "" in paths and (_ROOT / "cgroup.controllers").exists():
        folder = _ROOT / paths[""].lstrip("/")
        return Groups(
            memory_bytes=_number(folder / "memory.max"),
            pids=_number(folder / "pids.max"),
            cpus=_share(_text(folder / "cpu.max").split()),
        )
    memory, pids, cpu = (
        _ROOT / name / paths.get(name, "-").lstrip("/") for name in ("memory", "pids", "cpu")
    )
    if not cpu.is_dir():
        cpu = _ROOT / "cpu,cpuacct" / paths.get("cpu", "-").lstrip("/")
    quota = [_text(cpu / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    return Groups(
        memory_bytes=_number(memory / "memory.limit_in_bytes"),
        pids=_number(pids / "pids.max"),
        cpus=_share(quota),
    )


def _paths(pid: int) -> dict[str, str]:
    """Return the path in each hierarchy by controller; the one of version 2 has no name."""
    found = {}
    for line in _text(Path(f"/proc/{pid}/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        found.update(dict.fromkeys(names.split(","), path))
    return found


def _share(words: list[str]) -> float | None:
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
        return None
    return int(words[0]) / int(words[1])


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def own_version() -> str:
    """Return the version of control groups that this host has mounted."""
    return "2" if os.path.exists(_ROOT / "cgroup.controllers") else "1"

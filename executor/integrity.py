"""Refuse to run when the files of another distribution have taken the place of ours.

The import names ``budgets``, ``sandboxes`` and ``executor`` are general words, and other distributions
use them. An installer that puts such a one into the same environment overwrites files of ours without a
word, and what decides and isolates is then somebody else's code. So before anything else is imported, the
three ``__init__.py`` are compared with the hashes that the installer of this distribution wrote down.

A source tree, and an editable install of one, has no such list beside it; then only the origin is
compared: all three packages must come from one folder. Not found by this: a change to another file than
the three, and a RECORD rewritten with it. It guards against an accident, not against somebody who can
write to the environment.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGES = ("budgets", "sandboxes", "executor")
DISTRIBUTION = "remit"


class ForeignPackageError(Exception):
    """One of our packages is not the one that was installed; ``hint`` says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.hint = "install remit into an environment of its own (python3 -m venv)"


def check_installation(origins: Mapping[str, Path] | None = None) -> None:
    """Compare our packages with what was installed.

    Raises:
        ForeignPackageError: One comes from elsewhere or was overwritten; the message names whose it is.
    """
    found = origins or {name: _origin(name) for name in PACKAGES}
    root = _common_root(found)
    recorded = _recorded_hashes(root)
    for name, path in found.items():
        expected = recorded.get(f"{name}/__init__.py")
        if expected is not None and _record_hash(path.read_bytes()) != expected:
            raise ForeignPackageError(f"{path} is not the file that remit installed{_blame(root, name)}")


def _origin(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ForeignPackageError(f"the package {name} of remit is missing, or a folder without __init__.py")
    return Path(spec.origin)


def _common_root(origins: Mapping[str, Path]) -> Path:
    root = origins["executor"].parents[1]
    for name, path in origins.items():
        if path.parents[1] != root:
            other = path.parents[1]
            blame = _blame(other, name)
            raise ForeignPackageError(f"the package {name} comes from {other}, not from {root}{blame}")
    return root


def _recorded_hashes(root: Path) -> Mapping[str, str]:
    for record in root.glob(f"{DISTRIBUTION}-*.dist-info/RECORD"):
        return dict(_record_lines(record))
    return {}


def _record_lines(record: Path) -> Iterator[tuple[str, str]]:
    for line in record.read_text(encoding="utf-8").splitlines():
        path, _, rest = line.partition(",")
        yield path, rest.partition(",")[0]


def _record_hash(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return "sha256=" + digest.rstrip(b"=").decode()


def _blame(root: Path, name: str) -> str:
    owners = sorted(
        match[1]
        for record in root.glob("*.dist-info/RECORD")
        if (match := re.fullmatch(r"(.+)-[^-]+\.dist-info", record.parent.name))
        and match[1] != DISTRIBUTION
        and f"{name}/__init__.py" in dict(_record_lines(record))
    )
    return f"; it belongs to the distribution {', '.join(owners)}" if owners else ""

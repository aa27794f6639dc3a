"""Which existing paths a sandbox has to cover so that ``deny`` and ``protect`` hold for commands too.

A cover lies on a file or directory, never on a link: what a link of a covered name leads to is covered
instead, as the sandbox will resolve it, with the workspace at its mount point. A link that leads anywhere
else needs no cover, since nothing of the host is there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from budgets.glob import GlobSet
from budgets.scope import Scope
from executor.errors import RemitUnenforceable

MAX_COVERS: Final = 1024
_MOST_LINKED_FOLDERS: Final = 4096
_MOST_LINKS: Final = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Cover:
    """Paths of the user's tree that everything inside must find empty, and those that it must not write."""

    hidden: tuple[str, ...]
    read_only: tuple[str, ...]


def covered(workspace: Path, scope: Scope, *, write: Sequence[str]) -> Cover:
    """Find the topmost paths that ``deny`` and ``protect`` cover and that exist now.

    Raises:
        RemitUnenforceable: They are more than a sandbox can cover, a directory cannot be read, or a denied
            link leads to a directory that holds it.
    """
    search = _Search(workspace, scope, write)
    search.run()
    hidden = sorted(path for path in search.hidden if not _is_within(path, search.hidden))
    inside = search.read_only - search.hidden
    read_only = sorted(
        path for path in inside if not (_is_within(path, search.hidden) or _is_within(path, inside))
    )
    if len(hidden) + len(read_only) > MAX_COVERS:
        raise RemitUnenforceable(
            f"scope: deny and protect cover more than {MAX_COVERS} separate paths of {workspace}",
            hint="name the directories that hold them, so that one rule covers each",
        )
    return Cover(hidden=tuple(hidden), read_only=tuple(read_only))


class _Folder(NamedTuple):
    """A directory to look through: where it is, and the name that led there."""

    real: str
    name: str
    protected: bool
    linked_from: frozenset[str] | None


class _Search:
    def __init__(self, workspace: Path, scope: Scope, write: Sequence[str]) -> None:
        self.hidden: set[str] = set()
        self.read_only: set[str] = set()
        self._workspace = workspace
        self._scope = scope
        self._named = frozenset(write)
        self._lifted = _Ways(write)
        # Only what is written out in full lifts a protection.
        self._lifting = frozenset(segment for glob in write for segment in glob.split("/")[:-1])
        self._rules = _Ways((*scope.deny.patterns, *scope.protect.patterns))
        self._linked = 0

    def run(self) -> None:
        waiting = [_Folder("", "", protected=False, linked_from=None)]
        while waiting:
            folder = waiting.pop()
            for entry in self._entries(folder.real):
                below = self._judge(folder, entry)
                if below is not None:
                    waiting.append(below)

    def _judge(self, folder: _Folder, entry: os.DirEntry[str]) -> _Folder | None:
        """Cover an entry if its name asks for it; return the directory that is still to be looked through."""
        real, name = f"{folder.real}{entry.name}", f"{folder.name}{entry.name}"
        if entry.is_symlink():
            return self._judge_link(folder, real, name)
        is_directory = entry.is_dir(follow_symlinks=False)
        if not (is_directory or entry.is_file(follow_symlinks=False)):
            return None
        if self._scope.denied(name):
            self.hidden.add(real)
            return None
        protected = folder.protected or self._is_protected(name, is_directory=is_directory)
        if protected and not folder.protected:
            self.read_only.add(real)
        if not is_directory or (folder.linked_from is not None and not self._rules.lead_below(name)):
            return None
        return _Folder(f"{real}/", f"{name}/", protected=protected, linked_from=folder.linked_from)

    def _judge_link(self, folder: _Folder, real: str, name: str) -> _Folder | None:
        target = resolved(self._workspace, self._scope.mount, real)
        mode = 0 if target is None else self._mode(target)
        if target is None or not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return None
        if self._scope.denied(name):
            self._hide_target(real, target)
            return None
        protected = self._is_protected(name, is_directory=stat.S_ISDIR(mode))
        if protected and target not in self._named and not _holds(target, real):
            self.read_only.add(target)
        if not stat.S_ISDIR(mode) or not self._rules.lead_below(name):
            return None
        return self._through(folder, target, name, protected=protected)

    def _through(self, folder: _Folder, target: str, name: str, *, protected: bool) -> _Folder | None:
        """Look at a directory once more under the name that a link gives it, never in a circle."""
        before = folder.linked_from or frozenset()
        if target in before:
            return None
        self._linked += 1
        if self._linked > _MOST_LINKED_FOLDERS:
            raise RemitUnenforceable(
                f"scope: deny and protect lead through more than {_MOST_LINKED_FOLDERS} links of "
                f"{self._workspace}",
                hint="name directories where they are, and not through links",
            )
        real = "" if target == "." else f"{target}/"
        return _Folder(real, f"{name}/", protected=protected, linked_from=before | {target})

    def _hide_target(self, link: str, target: str) -> None:
        if _holds(target, link):
            raise RemitUnenforceable(
                f"scope.deny: {link} is a link to a directory that holds it, which cannot be hidden",
                hint="deny what is to be hidden by its own name",
            )
        self.hidden.add(target)

    def _is_protected(self, name: str, *, is_directory: bool) -> bool:
        """Say whether a name is protected as a whole, with nothing below that ``write`` names."""
        if not self._scope.protected(name):
            return False
        last = name.rpartition("/")[2]
        return not (is_directory and last in self._lifting and self._lifted.lead_below(name))

    def _mode(self, relative: str) -> int:
        try:
            return os.lstat(self._workspace / relative).st_mode
        except OSError:
            return 0

    def _entries(self, real: str) -> list[os.DirEntry[str]]:
        folder = os.path.join(self._workspace, real)
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except PermissionError as error:
            raise RemitUnenforceable(
                f"scope: {folder}: cannot be read: {error.strerror}",
                hint="run as a user who can read the workspace",
            ) from error
        except (FileNotFoundError, NotADirectoryError):
            # Gone since it was listed; nothing is there to cover.
            return []


class _Ways:
    """Knows the directories below which a glob may still match, by what it says of their own names."""

    def __init__(self, globs: Sequence[str]) -> None:
        patterns = [pattern.split("/") for pattern in globs]
        self._ways = GlobSet.of(
            sorted(
                {
                    "/".join(pattern[:end])
                    for pattern in patterns
                    for end in range(1, len(pattern))
                    # A leading ** takes in every name, and matches what is below by its real name as well.
                    if any(segment != "**" for segment in pattern[:end])
                }
            )
        )

    def lead_below(self, name: str) -> bool:
        return self._ways.matches(name)


def resolved(workspace: Path, mount: str, relative: str) -> str | None:
    """Return where a path of the workspace leads in the sandbox, free of links.

    None when that is outside of the workspace, nothing is there, or the links go round in a circle.
    """
    root = [part for part in mount.split("/") if part]
    at: list[str] = []
    waiting = [*reversed(relative.split("/")), *reversed(root)]
    links = 0
    while waiting:
        part = waiting.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            del at[-1:]
            continue
        at.append(part)
        content = _link_at(workspace, at, root)
        if content is None:
            return None
        if not content:
            continue
        links += 1
        if links > _MOST_LINKS:
            return None
        at = [] if content.startswith("/") else at[:-1]
        waiting.extend(reversed(content.split("/")))
    if at[: len(root)] != root:
        return None
    return "/".join(at[len(root) :]) or "."


def _link_at(workspace: Path, at: list[str], root: list[str]) -> str | None:
    """Return what the link at a place holds, nothing when it is no link; None when nothing is there."""
    if at[: len(root)] != root:
        return ""
    try:
        return os.readlink(workspace.joinpath(*at[len(root) :]))
    except OSError as error:
        return "" if error.errno == errno.EINVAL else None


def _holds(directory: str, path: str) -> bool:
    return directory == "." or path == directory or path.startswith(f"{directory}/")


def _is_within(path: str, others: set[str]) -> bool:
    """Say whether a directory above a path is among the others."""
    parent = path.rpartition("/")[0]
    while parent:
        if parent in others:
            return True
        parent = parent.rpartition("/")[0]
    return False

"""Turn a remit into what a sandbox needs to know, or refuse it before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budgets.glob import GlobSet
from budgets.remit import Remit
from budgets.scope import Scope
from executor.errors import RemitUnenforceable
from sandboxes.base import ResourceLimits, SandboxSpec

MAX_COVERS: Final = 1024
ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    # Bytecode beside the sources would be growth that nobody meant.
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cover:
    """Paths of the user's tree that everything inside must find empty, and those that it must not write."""

    hidden: tuple[str, ...]
    read_only: tuple[str, ...]


def plan_sandbox(remit: Remit, *, base: Path, state: Path) -> SandboxSpec:
    """Describe the sandbox that this remit asks for.

    Looks through the whole workspace by name, following no link, to find what ``deny`` and ``protect`` cover.

    Raises:
        RemitUnenforceable: It cannot be held to what it promises.
    """
    workspace = _workspace(remit, base=base, state=state)
    cover = covered(workspace, remit.scope.compiled, write=remit.scope.write)
    rules = remit.sandbox
    return SandboxSpec(
        kind=rules.kind,
        workspace=workspace,
        mount=remit.scope.mount,
        limits=ResourceLimits(
            memory_bytes=rules.memory,
            pids=rules.pids,
            cpus=rules.cpus,
            cpu_seconds=max(1, round(rules.cpu_time)),
            open_files=rules.files,
            file_bytes=rules.file_size,
            disk_bytes=rules.disk,
            inodes=rules.inodes,
            tmp_bytes=rules.tmp,
            output_limit_bytes=rules.output_limit,
        ),
        hidden=cover.hidden,
        read_only=cover.read_only,
        environment=ENVIRONMENT,
        lifetime=rules.lifetime,
        network=rules.network,
        runtime=rules.runtime,
        image=rules.image,
    )


def shell_inside() -> str:
    """Give the shell that commands are written for: bash where there is one."""
    # The sandbox has the host's programs; an image of its own has its own /bin/sh at least.
    return "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"


def covered(workspace: Path, scope: Scope, *, write: Sequence[str]) -> Cover:
    """Find the topmost paths that ``deny`` and ``protect`` cover and that exist now.

    Links are left out: what they lead to is covered under its own name, and a changed link is growth.

    Raises:
        RemitUnenforceable: They are more than a sandbox can cover, or a directory cannot be read.
    """
    hidden: list[str] = []
    read_only: list[str] = []
    for entry, relative in _entries(workspace, scope, write):
        if entry.is_symlink() or not (
            entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
        ):
            continue
        if scope.denied(relative):
            hidden.append(relative)
        elif scope.protected(relative):
            read_only.append(relative)
        if len(hidden) + len(read_only) > MAX_COVERS:
            raise RemitUnenforceable(
                f"scope: deny and protect cover more than {MAX_COVERS} separate paths of {workspace}",
                hint="name the directories that hold them, so that one rule covers each",
            )
    return Cover(hidden=tuple(hidden), read_only=tuple(read_only))


def _entries(workspace: Path, scope: Scope, write: Sequence[str]) -> Iterator[tuple[os.DirEntry[str], str]]:
    waiting = [(str(workspace), "")]
    opened = _Lifted(write)
    while waiting:
        folder, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except PermissionError as error:
            raise RemitUnenforceable(
                f"scope: {folder}: cannot be read: {error.strerror}",
                hint="run as a user who can read the workspace",
            ) from error
        except (FileNotFoundError, NotADirectoryError):
            # Gone since it was listed; nothing is there to cover.
            continue
        for entry in entries:
            relative = f"{prefix}{entry.name}"
            covered_whole = scope.denied(relative) or (
                scope.protected(relative) and not opened.below(entry.name, relative)
            )
            if covered_whole or not entry.is_dir(follow_symlinks=False):
                yield entry, relative
            else:
                waiting.append((entry.path, f"{relative}/"))


class _Lifted:
    """Knows the protected directories in which ``write`` names something exactly."""

    def __init__(self, write: Sequence[str]) -> None:
        patterns = [pattern.split("/") for pattern in write]
        self._names = {segment for pattern in patterns for segment in pattern[:-1]}
        self._ways = GlobSet.of(
            ["/".join(pattern[:end]) for pattern in patterns for end in range(1, len(pattern))]
        )

    def below(self, name: str, relative: str) -> bool:
        return name in self._names and self._ways.matches(relative)


def _workspace(remit: Remit, *, base: Path, state: Path) -> Path:
    given = Path(os.path.expanduser(remit.scope.workspace))
    workspace = (base / given).resolve()
    if not workspace.is_dir():
        raise RemitUnenforceable(
            f"scope.workspace: {workspace} is not a directory",
            hint="it is taken relative to the remit's own directory",
        )
    if workspace == Path(workspace.anchor):
        raise RemitUnenforceable(
            "scope.workspace: / cannot be a workspace", hint="name the project's directory"
        )
    state = state.resolve()
    if state == workspace or workspace in state.parents or state in workspace.parents:
        raise RemitUnenforceable(
            f"scope.workspace: {workspace} and the state directory {state} lie in each other",
            hint="set REMIT_STATE_DIR to a directory elsewhere",
        )
    return workspace

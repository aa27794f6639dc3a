"""Turn a remit into what a sandbox needs to know, or refuse it before anything runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from budgets.remit import Remit
from executor.covers import covered
from executor.errors import RemitUnenforceable
from sandboxes.base import ResourceLimits, SandboxSpec

ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    # Bytecode beside the sources would be growth that nobody meant.
    "PYTHONDONTWRITEBYTECODE": "1",
}


def plan_sandbox(remit: Remit, *, base: Path, state: Path) -> SandboxSpec:
    """Describe the sandbox that this remit asks for.

    Looks through the whole workspace by name to find what ``deny`` and ``protect`` cover.

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

"""Programs that the faults tests start and kill: a broker with a sandbox in which a command runs."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from sandboxes.base import ExecRequest, SandboxSpec
from sandboxes.open import open_docker


async def hold(workspace: str) -> None:
    """Open a sandbox, say so, and run a command that does not end."""
    async with open_docker(SandboxSpec(kind="docker", workspace=Path(workspace))) as sandbox:
        print(sandbox.guest_pid, flush=True)
        await sandbox.exec(ExecRequest(argv=("sleep", "600"), timeout_seconds=600))


if __name__ == "__main__":
    anyio.run(hold, sys.argv[1])

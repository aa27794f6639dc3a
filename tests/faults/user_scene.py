"""What an ordinary user with an engine does, as a program: run a few commands, tell what was seen."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import anyio

from sandboxes.base import ExecRequest, SandboxSpec
from sandboxes.docker.place import places_folder
from sandboxes.docker.removal import settle
from sandboxes.open import open_docker
from sandboxes.workspace.changes import read_changes

SCRIPT = "echo x > new; rm old gone; mkdir -p d/e; echo y > d/e/f; chmod 000 d/e; rm -r sub; id -u"


async def work(tree: Path) -> None:
    """Run commands that leave all an overlay has marks for, and print what came of it."""
    async with open_docker(SandboxSpec(kind="docker", workspace=tree, read_only=("kept",))) as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("sh", "-c", SCRIPT)))
        kept = await sandbox.exec(ExecRequest(argv=("sh", "-c", "echo x > kept")))
        controls = {control.name: control.state for control in sandbox.controls}
        strategy = sandbox.identity.strategy
    changes = [change.path for change in await anyio.to_thread.run_sync(read_changes, sandbox.layer)]
    del sandbox
    left = await anyio.to_thread.run_sync(what_is_left)
    print(
        json.dumps(
            {
                "output": result.output.decode(),
                "kept": kept.exit_code,
                "controls": controls,
                "strategy": strategy,
                "changes": changes,
                "left": left,
            }
        )
    )


def what_is_left() -> list[str]:
    """Give what the sandbox's private directories hold once all that goes on in the background is done."""
    settle()
    for thread in threading.enumerate():
        if thread.name == "remit-forget":
            thread.join(10)
    return [str(path) for path in Path(places_folder()).rglob("*")]


if __name__ == "__main__":
    anyio.run(work, Path(sys.argv[1]))

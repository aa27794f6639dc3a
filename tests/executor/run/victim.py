"""Brokers to be killed: for each line on stdin one is forked that works until then; its pid is printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from budgets.remit import parse
from executor.run import open_run
from executor.store import RunStore


async def work(base: Path, remit_text: str, marker: str) -> None:
    remit = parse(remit_text, source="victim")
    async with open_run(remit, base=base, store=RunStore(base / "state")) as run:

        async def commands() -> None:
            while True:
                await run.call("terminal", {"command": f"sleep 0.02 # {marker}"})

        async def writes() -> None:
            while True:
                await run.call("write_file", {"path": "a", "content": "x" * 1000})

        async with anyio.create_task_group() as group:
            group.start_soon(commands)
            group.start_soon(commands)
            group.start_soon(writes)


def main() -> None:
    remit_text = Path(sys.argv[1]).read_text()
    for line in sys.stdin:
        base, marker = line.split()
        pid = os.fork()
        if pid == 0:
            os.close(0)
            anyio.run(work, Path(base), remit_text, marker)
            os._exit(1)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main()

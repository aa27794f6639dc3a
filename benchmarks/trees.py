"""Workspaces of a given size, and remits over them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from budgets.remit import Remit, parse

FILES_PER_DIRECTORY = 500

Lifetime: TypeAlias = Literal["task", "call"]
Runtime: TypeAlias = Literal["runc", "runsc"]

_REMIT = """
version: 1
task: {{id: bench, class: benchmark}}
sandbox:
  kind: {kind}
{engine}  lifetime: {lifetime}
  disk: 512MiB
  pids: 256
  output_limit: {output_limit}
scope:
  workspace: {workspace}
  read: ["**"]
  write: ["out/**"]
budget:
  tools: {{write_file: {calls}, read_file: {calls}, terminal: {terminal}}}
  wall_time: 2h
  output: 1TiB
  written: 1TiB
  violations: 100000000
commit: never
"""

MANY = 100_000_000


def make_tree(directory: Path, *, files: int) -> Path:
    """Make ``files`` small files, five hundred in each directory, and an empty ``out``."""
    (directory / "out").mkdir(parents=True)
    for number in range(files):
        place = directory / f"d{number // FILES_PER_DIRECTORY:04}"
        if number % FILES_PER_DIRECTORY == 0:
            place.mkdir()
        (place / f"f{number % FILES_PER_DIRECTORY:03}").write_bytes(b"x")
    return directory


def remit_over(
    workspace: Path, *, terminal: int, output_limit: int, lifetime: Lifetime, runtime: Runtime | None = None
) -> Remit:
    """Make a remit that allows as many calls as a benchmark wants, embedded or in an engine's runtime."""
    text = _REMIT.format(
        kind="bubblewrap" if runtime is None else "docker",
        engine="" if runtime is None else f"  runtime: {runtime}\n  image: remit-base\n",
        workspace=workspace,
        calls=MANY,
        terminal=terminal,
        output_limit=output_limit,
        lifetime=lifetime,
    )
    return parse(text, source="benchmark")

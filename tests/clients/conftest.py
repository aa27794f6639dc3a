from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mcp import StdioServerParameters

REMIT = """
version: 1
task: {id: notes, class: text}
scope:
  workspace: ./work
  read: ["**"]
  write: ["*.txt"]
  deny: [secret.txt]
budget:
  tools: {read_file: 4, write_file: 2, terminal: 3}
  wall_time: 5m
  violations: 20
checks:
  - run: [grep, -qx, hello, a.txt]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A remit and a workspace of their own, and the way to a server for them."""

    folder: Path
    state: Path

    @property
    def remit(self) -> Path:
        return self.folder / "remit.yaml"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "REMIT_STATE_DIR": str(self.state),
            "LANG": "C.UTF-8",
        }

    def argv(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "executor.cli", "mcp", str(self.remit), *options]

    def server(self, *options: str) -> StdioServerParameters:
        command, *arguments = self.argv(*options)
        return StdioServerParameters(command=command, args=arguments, env=self.environment())


@pytest.fixture
def task(tmp_path: Path) -> Task:
    folder = tmp_path / "project"
    (folder / "work").mkdir(parents=True)
    (folder / "work/secret.txt").write_text("nobody may read this\n")
    (folder / "remit.yaml").write_text(REMIT)
    return Task(folder=folder, state=tmp_path / "state")

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from executor.cli.app import run

WITH_SANDBOX = {"replay", "finish", "demo"}
REMIT = """
version: 1
task: {id: notes, class: text}
scope:
  workspace: ./work
  read: ["**"]
  write: ["a.txt", "odd*"]
  deny: [secret.txt]
budget:
  tools: {read_file: 2, write_file: 3, terminal: 1}
  violations: 20
checks:
  - run: [grep, -qx, hello, a.txt]
"""
CALLS = (
    {"tool": "read_file", "arguments": {"path": "secret.txt"}},
    {"tool": "write_file", "arguments": {"path": "a.txt", "content": "hello\n"}},
    {"tool": "write_file", "arguments": {"path": "odd\x1b[31m.txt", "content": "\x1b]0;title\x07\n"}},
    {"tool": "bash", "arguments": {"command": "id"}},
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How one command line ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A folder with a remit, a workspace and a recording, and a state directory."""

    folder: Path
    state: Path
    capsys: Any = field(default=None)

    @property
    def remit(self) -> str:
        return str(self.folder / "remit.yaml")

    @property
    def recording(self) -> str:
        return str(self.folder / "calls.jsonl")

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def run_directory(self) -> Path:
        (path,) = self.state.glob("runs/*")
        return path

    def __call__(self, *arguments: str) -> Ended:
        if arguments[0] in WITH_SANDBOX and "--dry-run" not in arguments:
            return self.subprocess(*arguments)
        code = run(list(arguments))
        captured = self.capsys.readouterr()
        return Ended(code=code, out=captured.out, err=captured.err)

    def subprocess(self, *arguments: str) -> Ended:
        """Run the command as a program of its own."""
        argv = [sys.executable, "-m", "executor.cli", *arguments]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
        return Ended(code=ended.returncode, out=ended.stdout, err=ended.stderr)


def make_project(folder: Path) -> Project:
    (folder / "project/work").mkdir(parents=True)
    (folder / "project/work/secret.txt").write_text("nobody may read this\n")
    (folder / "project/remit.yaml").write_text(REMIT)
    (folder / "project/calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in CALLS))
    return Project(folder=folder / "project", state=folder / "state")


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    """A project that nothing has run in yet."""
    made = make_project(tmp_path)
    monkeypatch.setenv("REMIT_STATE_DIR", str(made.state))
    return Project(folder=made.folder, state=made.state, capsys=capsys)


@pytest.fixture(scope="session")
def replayed(tmp_path_factory):
    """A project with one finished run; not to be changed."""
    made = make_project(tmp_path_factory.mktemp("replayed"))
    ended = made.subprocess("replay", made.remit, made.recording, "--state-dir", str(made.state))
    assert ended.code == 3, ended.err
    return made


@pytest.fixture
def finished(replayed, tmp_path, monkeypatch, capsys):
    """A copy of the project with one finished run, over the same workspace path."""
    state = tmp_path / "state"
    shutil.copytree(replayed.state, state)
    monkeypatch.setenv("REMIT_STATE_DIR", str(state))
    yield Project(folder=replayed.folder, state=state, capsys=capsys)
    for path in replayed.work.iterdir():
        if path.name != "secret.txt":
            path.unlink()

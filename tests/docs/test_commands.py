"""Every document is run as one session: its commands, scripts and Python, in order, in a fresh directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, Command, blocks, commands, documents

LANGUAGES = {"console", "sh", "python", "yaml", "json", "text", "toml", ""}
RUNNABLE = {"console", "sh", "python"}
# These would run the tests within the tests, or the network; the target must exist, that is all.
MAKE_NOT_RUN = re.compile(r"^make (?P<target>\w+)( \w+=.*)?$")


def _has_something_to_run(path: Path) -> bool:
    return any(block.language in RUNNABLE or block.mark("file") for block in blocks(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """What a command gave on standard output and on standard error."""

    data: str
    talk: str

    def shows(self, shown: str) -> bool:
        """Say whether a document shows this: the data alone, or with the talk before or after it."""
        return any(
            _matches(shown, seen) for seen in (self.data, self.data + self.talk, self.talk + self.data)
        )


@dataclass
class Session:
    """A working directory and an environment in which the commands of one document run one after another."""

    directory: Path
    environment: dict[str, str]
    cwd: Path

    def run(self, argv: list[str], *, expected: int, where: str) -> Printed:
        process = subprocess.run(
            argv,
            cwd=self.cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=100,
        )
        printed = Printed(data=process.stdout, talk=process.stderr)
        assert process.returncode == expected, (
            f"{where}: exit {process.returncode}\n{printed.talk}{printed.data}"
        )
        return printed

    def shell(self, script: str, *, expected: int, where: str) -> Printed:
        """Run one script and keep the directory that it ended in for the next."""
        landed = self.directory / ".cwd"
        output = self.run(
            ["bash", "-c", f"{script}\nstatus=$?\npwd > '{landed}'\nexit $status"],
            expected=expected,
            where=where,
        )
        self.cwd = Path(landed.read_text().strip())
        return output


@pytest.fixture
def session(tmp_path: Path) -> Session:
    checkout = tmp_path / "remit"
    shutil.copytree(ROOT / "examples", checkout / "examples")
    for name in ("home", "state", "tmp"):
        (tmp_path / name).mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "REMIT_STATE_DIR": str(tmp_path / "state"),
        "LANG": "C.UTF-8",
        "COLUMNS": "120",
    }
    return Session(directory=tmp_path, environment=environment, cwd=checkout)


@pytest.mark.parametrize(
    "path", [p for p in documents() if _has_something_to_run(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_document_runs_as_written(path: Path, session: Session) -> None:
    for block in blocks(path):
        if block.mark("not run") is not None:
            continue
        if (name := block.mark("file")) is not None:
            _write(session.cwd / name, block.text)
        elif block.language == "console":
            for command in commands(block):
                _run_command(session, block, command)
        elif block.language == "sh":
            session.shell(f"set -eu\n{block.text}", expected=_expected(block), where=block.where)
        elif block.language == "python":
            session.run([sys.executable, "-c", block.text], expected=_expected(block), where=block.where)


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_block_names_a_known_language(path: Path) -> None:
    unknown = [
        f"{block.where}: {block.language}" for block in blocks(path) if block.language not in LANGUAGES
    ]

    assert unknown == []


def _run_command(session: Session, block: Block, command: Command) -> None:
    where = f"{block.path.relative_to(ROOT)}:{command.line}"
    if make := MAKE_NOT_RUN.match(command.text):
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{make['target']}:", makefile, re.MULTILINE), f"{where}: no such target"
        if make["target"] != "demo":
            return
        script = "remit demo"
    else:
        script = command.text
    printed = session.shell(script, expected=_expected(block), where=where)
    if command.output.strip():
        assert printed.shows(command.output), f"{where}: the document shows something else than {printed}"


def _expected(block: Block) -> int:
    return int(block.mark("exits") or 0)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _matches(shown: str, actual: str) -> bool:
    """Say whether the output is as shown; ``…`` stands for anything, as does what differs between runs."""
    pattern = ".*".join(re.escape(_steady(part)) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, _steady(actual).strip(), re.DOTALL) is not None


def _steady(text: str) -> str:
    """Replace what no two runs share: names of runs, digests, times, durations and directories."""
    replacements = (
        (r"\x1b\[[0-9;]*m", ""),
        (r"[ \t]+(?=\n|$)", ""),
        (r"/[\w./-]*/(?=(runs|state|examples|remit)\b)", "DIR/"),
        (r"\b\d{8}[T-]?\d{6}Z?-\w+", "RUN"),
        (r"\b\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "TIME"),
        (r"\b(sha256:)?[0-9a-f]{12,64}\b", "DIGEST"),
        (r"\b\d+([.,]\d+)? ?(ms|µs|s)\b", "DURATION"),
    )
    for pattern, replacement in replacements:
        text = re.sub(pattern, replacement, text)
    return re.sub(r" {2,}", " ", text)

"""Every recording of every example comes to what the example says, through the real program and sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One recording and what it must come to."""

    example: str
    recording: str
    expected: dict[str, Any]


def _cases() -> list[Case]:
    return [
        Case(example=path.parent.name, recording=recording, expected=expected)
        for path in sorted(EXAMPLES.glob("*/expected.json"))
        for recording, expected in json.loads(path.read_text()).items()
    ]


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy)
    return copy


def _remit(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "remit"), *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(state),
            "REMIT_STATE_DIR": str(state),
            "LANG": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


def _content(tree: Path) -> dict[str, tuple[int, bytes | str | None]]:
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        held = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(tree))] = (status.st_mode, held)
    return found


@pytest.mark.parametrize("case", _cases(), ids=lambda case: f"{case.example}-{case.recording}")
def test_recording_comes_to_what_the_example_says(case: Case, examples: Path, tmp_path: Path) -> None:
    folder = examples / case.example
    before = _content(folder)

    process = _remit(
        "replay",
        str(folder / "remit.yaml"),
        str(folder / "recordings" / case.recording),
        "--json",
        state=tmp_path / "s",
    )

    assert process.returncode == case.expected["exit_code"], process.stdout + process.stderr
    result = json.loads(process.stdout)
    assert result["verdict"]["outcome"] == case.expected["verdict"]
    assert sorted({reason["code"] for reason in result["verdict"]["reasons"]}) == sorted(
        case.expected["reasons"]
    )
    assert [code for call in result["calls"] for code in _denials(call)] == case.expected["denied"]
    assert _content(folder) == before


@pytest.mark.parametrize("case", _cases(), ids=lambda case: f"{case.example}-{case.recording}")
def test_journal_and_receipt_of_the_example_verify(case: Case, examples: Path, tmp_path: Path) -> None:
    folder = examples / case.example
    state = tmp_path / "s"
    _remit("replay", str(folder / "remit.yaml"), str(folder / "recordings" / case.recording), state=state)

    log = _remit("log", "verify", "latest", state=state)
    receipt = _remit("receipt", "verify", "latest", state=state)

    assert (log.returncode, receipt.returncode) == (0, 0), log.stderr + receipt.stderr


def test_every_recording_is_expected_to_come_to_something() -> None:
    listed = {(case.example, case.recording) for case in _cases()}
    present = {(path.parent.parent.name, path.name) for path in EXAMPLES.glob("*/recordings/*")}

    assert listed == present


def _denials(call: dict[str, Any]) -> list[str]:
    return list(call["codes"]) if call["status"] == "denied" else []

"""Every member of every JSON document that a command prints is in the command reference."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT

# What these hold is described where it comes from: remit.md, journal.md, and the names that a remit gives.
ELSEWHERE = frozenset({"effective", "records", "by_status", "by_code", "by_action", "remaining", "details"})
ANSWER = ("--call", '{"tool": "terminal", "arguments": {"command": "ls"}}')
RECORDING = "examples/one-write/recordings/terminal-after.json"
REMIT = "examples/one-write/remit.yaml"

PRINTED = {
    "check": ("check", REMIT),
    "check --call": ("check", REMIT, *ANSWER),
    "replay": ("replay", REMIT, RECORDING),
    "replay --dry-run": ("replay", REMIT, RECORDING, "--dry-run"),
    "runs": ("runs",),
    "log violations": ("log", "violations"),
    "log verify": ("log", "verify"),
    "receipt verify": ("receipt", "verify"),
    "diff": ("diff",),
    "apply": ("apply", "latest"),
    "discard": ("discard", "latest"),
    "clean": ("clean", "--all"),
    "doctor": ("doctor",),
}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each command prints, run in this order in one directory."""
    place = tmp_path_factory.mktemp("json")
    shutil.copytree(ROOT / "examples", place / "examples")
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "REMIT_STATE_DIR": str(place / "state")}
    program = str(Path(sys.executable).parent / "remit")
    printed = {}
    for name, arguments in PRINTED.items():
        process = subprocess.run(
            [program, *arguments, "--json"],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
        )
        printed[name] = json.loads(process.stdout)
    return printed


@pytest.mark.parametrize("name", PRINTED)
def test_members_of_the_json_are_documented(name: str, documents: dict[str, Any]) -> None:
    section = _section((ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), name.partition(" --")[0])

    assert [key for key in dict.fromkeys(_members(documents[name])) if f"`{key}`" not in section] == []


def _section(page: str, command: str) -> str:
    """Return the text under one command's heading, and under those that it refers to."""
    parts = {part.partition("\n")[0].strip("# `"): part for part in re.split(r"\n(?=#+ )", page)}
    own = parts[f"remit {command}"]
    referred = [parts[name] for name in re.findall(r"as for `(remit [a-z ]+)`", own)]
    return "\n".join([own, *referred])


def _members(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _members(item)
    elif isinstance(value, dict):
        for key, held in value.items():
            yield key
            if key not in ELSEWHERE:
                yield from _members(held)

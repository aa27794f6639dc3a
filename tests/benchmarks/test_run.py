"""The benchmarks run and give each figure with what it is to be read beside; no figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def _measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/run.py", "--quick", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_figures_stand_beside_their_floor_and_target() -> None:
    process = _measure("--json", "life", "calls")

    assert process.returncode == 0, process.stderr
    document = json.loads(process.stdout)
    assert document["quick"] is True
    figures = {figure["name"]: figure for figure in document["figures"]}
    command = figures["terminal `true`, p50"]
    assert command["floor_name"] == "fork+exec"
    assert command["target"] == "<= 5 x"
    assert all(figure["value"] > 0 for figure in figures.values())


def test_figures_read_as_a_table() -> None:
    process = _measure("output")

    assert process.returncode == 0, process.stderr
    head, rule, *rows = process.stdout.splitlines()
    assert head.split() == ["what", "measured", "floor", "ratio", "target"]
    assert set(rule) == {"-"}
    assert len(rows) == 3

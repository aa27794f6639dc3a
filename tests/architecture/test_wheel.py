"""What is shipped: the built wheel, not the working tree."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("remit-*.whl")
    return built


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"budgets", "sandboxes", "executor"}


def test_every_module_of_the_tree_is_in_the_wheel(wheel):
    shipped = set(zipfile.ZipFile(wheel).namelist())

    tree = {
        str(path.relative_to(ROOT))
        for package in ("budgets", "sandboxes", "executor")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tree <= shipped


def test_the_wheel_runs_from_an_environment_of_its_own(wheel, tmp_path):
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)

    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "import executor; print(executor.__file__); from executor.cli import main; main(['--version'])",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert shown.returncode == 0, shown.stderr
    assert str(target) in shown.stdout
    assert "remit" in shown.stdout

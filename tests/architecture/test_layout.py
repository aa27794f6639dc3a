"""The shape of the source tree: short modules, one noun each, no junk drawers."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("budgets", "sandboxes", "executor")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
JUNK_DRAWERS = {"utils", "util", "common", "core", "helpers", "helper", "misc", "tools_common"}
LONGEST_MODULE = 400


def module_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_module_is_shorter_than_400_lines(path):
    assert len(path.read_text().splitlines()) < LONGEST_MODULE


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text())), "no module docstring"


def test_no_module_is_a_junk_drawer():
    assert [path for path in MODULES if path.stem in JUNK_DRAWERS] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_ships_its_types(package):
    assert (ROOT / package / "py.typed").is_file()


def test_no_security_setting_hangs_on_an_assert():
    found = [
        f"{module_id(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]

    assert found == []


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_index_or_a_place_on_one_machine():
    forbidden = re.compile(
        "|".join(
            (
                "py" + r"pi\.org",
                "pythonhosted" + r"\.org",
                "registry" + r"\.npmjs",
                "deb\\.debian" + r"\.org",
                "/work" + "/main",
                "/root/" + "\\.pyenv",
            )
        )
    )

    found = []
    for path in tracked_files():
        text = path.read_bytes().decode(errors="replace")
        found += [f"{module_id(path)}: {match.group()}" for match in forbidden.finditer(text)]

    assert found == []


def test_the_lock_pins_every_package_by_hash_and_names_no_index():
    lock = (ROOT / "requirements-dev.lock").read_text()

    entries = re.findall(
        r"^[a-z0-9][^\s=]*==[^\n]+ \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.MULTILINE
    )
    names = re.findall(r"^[a-z0-9][^\s=]*==", lock, re.MULTILINE)
    assert len(entries) == len(names) > 0
    assert "://" not in lock
    assert "--index-url" not in lock
    assert "--find-links" not in lock

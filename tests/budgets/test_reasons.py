"""Every code is registered once, explained once and found by its family."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from budgets import verdict
from budgets.reasons import DOCUMENT, REGISTRY, UnknownReasonCodeError, lookup

ROOT = Path(__file__).resolve().parents[2]


def test_a_member_of_a_family_is_found_by_its_family():
    assert lookup("budget.tools.terminal").code == "budget.tools.*"
    assert lookup("budget.groups.looking").code == "budget.groups.*"
    assert lookup("budget.tools.*").code == "budget.tools.*"
    assert lookup("budget.calls").code == "budget.calls"


@pytest.mark.parametrize("code", ["", "nope", "scope.nope", "budget.tools.a.b", "budget", "*"])
def test_a_code_that_nobody_registered_is_an_error(code):
    with pytest.raises(UnknownReasonCodeError):
        lookup(code)


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=lambda entry: entry.code)
def test_an_entry_is_a_sentence_under_an_anchor(entry):
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+(\.\*)?", entry.code)
    assert entry.sentence.endswith(".")
    assert entry.sentence[0].isupper()
    assert re.fullmatch(r"[a-z_]+", entry.anchor)


@pytest.mark.parametrize("code", REGISTRY)
def test_every_code_has_a_heading_in_the_documentation(code):
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")

    assert f"### `{code}`\n" in text


def test_no_heading_explains_a_code_that_does_not_exist():
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")

    assert sorted(re.findall(r"^### `([^`]+)`$", text, flags=re.MULTILINE)) == sorted(REGISTRY)


def test_anchors_differ():
    assert len({entry.anchor for entry in REGISTRY.values()}) == len(REGISTRY)


def test_every_code_that_is_judged_is_registered():
    judged = set(verdict._OUTCOMES)

    assert judged <= set(REGISTRY)
    assert {code for code, entry in REGISTRY.items() if entry.scope == "verdict"} <= judged


@pytest.mark.parametrize("path", sorted((ROOT / "budgets").glob("*.py")), ids=lambda path: path.name)
def test_every_code_that_the_package_names_is_registered(path):
    for code in re.findall(r'code="([^"]+)"', path.read_text(encoding="utf-8")):
        assert lookup(code)

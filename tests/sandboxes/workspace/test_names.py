from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.workspace.names import escape_name, escape_text, parts_of, to_bytes, to_text, unescape_name


@given(st.binary())
def test_every_name_comes_back_from_text_and_from_its_escape(raw):
    text = to_text(raw)

    assert to_bytes(text) == raw
    assert to_bytes(unescape_name(escape_name(text))) == raw


@given(st.binary())
def test_nothing_shown_can_steer_a_terminal(raw):
    shown = escape_name(to_text(raw)) + escape_text(to_text(raw)).replace("\t", "")

    assert not {unicodedata.category(character) for character in shown} & {
        "Cc",
        "Cf",
        "Cs",
        "Co",
        "Cn",
        "Zl",
        "Zp",
    }
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.txt", "plain.txt"),
        ("é", "é"),
        ("a\nb", "a\\x0ab"),
        ("\x1b[2J", "\\x1b[2J"),
        ("back\\slash", "back\\\\slash"),
        ("\udcff", "\\xff"),
        ("x\u202egpj", "x\\u202egpj"),
        ("\u0085", "\\u0085"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_names_are_shown(name, shown):
    assert escape_name(name) == shown


def test_two_names_never_look_the_same():
    assert escape_name("\\x1b") != escape_name("\x1b")


def test_the_workspace_itself_has_no_parts():
    assert parts_of(".") == ()
    assert parts_of("a/b") == (b"a", b"b")

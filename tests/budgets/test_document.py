"""YAML means what YAML 1.2 says, or is refused before it costs anything."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.document import MAX_CHARACTERS, MAX_NODES, Document, dotted, read_document
from budgets.problem import RemitInvalid


def value_of(text):
    document = read_document(text, source="x")
    assert document.problems == ()
    return document.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("Off", "Off"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'12'", "12"),
        ("12", 12),
        ("-12", -12),
        ("+3", 3),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("10:30", "10:30"),
        ("2024-01-01", "2024-01-01"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("=", "="),
    ],
)
def test_plain_scalars_follow_the_core_schema(text, value):
    found = value_of(f"a: {text}")["a"]

    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number_that_is_not_one():
    found = value_of("a: .nan")["a"]

    assert found != found


def test_a_merge_key_is_a_key_like_any_other():
    assert value_of("<<: {a: 1}\nb: 2") == {"<<": {"a": 1}, "b": 2}


def test_each_value_has_its_line():
    document = read_document("a: 1\nb:\n  - x\n  - y: 2\n", source="x")

    assert document.line_of(("a",)) == 1
    assert document.line_of(("b", 0)) == 3
    assert document.line_of(("b", 1, "y")) == 4
    assert document.line_of(("b", 1, "missing", "deeper")) == 4
    assert document.line_of(()) == 1
    assert Document(value=None, lines={}, problems=()).line_of(("a",)) == 1


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("a: &x 1", 1, "anchor"),
        ("a: 1\nb: *x", 2, "alias"),
        ("a: 1\nb: !!int '3'", 2, "tag"),
        ("a: !x {b: 1}", 1, "tag"),
        ("a: 1\n---\nb: 1", 2, "single document"),
        ("a: [1", 1, "flow sequence"),
        ("a: 1\n\tb: 2", 2, "not valid YAML"),
        ("a: 1\nb: \x01", 2, "cannot be printed"),
        ("a: \ud800", 1, "cannot be printed"),
        ("a: " + "[" * 1000, 1, "levels"),
        ("a: 1\n" + "  " * 0 + "b: [" + "1," * MAX_NODES + "1]", 2, "values"),
        ("#" * (MAX_CHARACTERS + 1), 1, "characters"),
        ("%YAML 2.0\n---\na: 1", 1, "not valid YAML"),
    ],
)
def test_what_is_more_than_a_plain_tree_is_refused_with_its_line(text, line, said):
    with pytest.raises(RemitInvalid) as caught:
        read_document(text, source="x")

    [problem] = caught.value.problems
    assert (problem.line, said in problem.message) == (line, True)


def test_an_alias_bomb_is_refused_at_its_first_anchor():
    bomb = "a: &a [x, x]\n" + "\n".join(
        f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )

    with pytest.raises(RemitInvalid, match="x:1: an anchor is not allowed"):
        read_document(bomb, source="x")


@pytest.mark.parametrize(
    ("text", "line", "where", "said"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a", "on line 1"),
        ("x:\n  a: 1\n  'a': 3", 3, "x.a", "on line 2"),
        ("x: 1\n2: y", 2, "", "a key must be text"),
        ("x: 1\n? [a]\n: y", 2, "", "a key must be text"),
        ("x: 1\nn: " + "9" * 31, 2, "n", "digits"),
        ("x: 1\nn: 1e" + "9" * 31, 2, "n", "digits"),
    ],
)
def test_a_key_or_number_that_is_wrong_is_noted_and_the_rest_is_read(text, line, where, said):
    document = read_document(text, source="x")

    [problem] = document.problems
    assert (problem.line, problem.where) == (line, where)
    assert said in problem.message
    assert "x" in document.value or "a" in document.value


@given(st.text(alphabet="ab:-?[]{},&*!|>'\"%@`# \n\t1.~<=", max_size=60))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(RemitInvalid):
        read_document(text, source="x")


def test_a_place_is_written_as_its_author_would():
    assert dotted(("checks", 0, "run")) == "checks[0].run"
    assert dotted(("budget", "tools", "a b\x1b")) == "budget.tools.'a b\\x1b'"
    assert dotted((0,)) == "[0]"

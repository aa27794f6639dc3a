from __future__ import annotations

import json
from enum import StrEnum
from types import MappingProxyType

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from executor.audit.canonical import (
    MAX_INTEGER,
    canonical,
    digestible,
    escape_strings,
    escape_text,
    unescape_strings,
    unescape_text,
)
from executor.audit.errors import RecordRefused

any_text = st.text(st.characters())  # lone surrogates included
text = st.text(st.characters(exclude_categories=["Cs"]))
leaves = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | text


def values(leaf, key=text):
    return st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(key, inner), max_leaves=20)


@given(values(leaves))
def test_the_bytes_are_those_of_an_independent_rfc_8785_encoder(value):
    assert canonical(value) == rfc8785.dumps(value)


@given(values(leaves))
def test_decoding_gives_the_value_back(value):
    assert json.loads(canonical(value)) == value


def test_keys_are_in_the_order_of_utf_16_code_units():
    assert canonical({"\U0001f600": 1, "\ufb33": 2, "a": 3}) == '{"a":3,"\U0001f600":1,"\ufb33":2}'.encode()


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), 2**53, -(2**53), "\ud800", {1: 2}, {"a": b"x"}, {1}, object()]
)
@pytest.mark.parametrize(
    "wrap", [lambda value: value, lambda value: [value], lambda value: {"é": {"b": (value,)}}]
)
def test_what_has_no_canonical_form_is_refused(value, wrap):
    with pytest.raises(RecordRefused):
        canonical(wrap(value))


def test_a_value_nested_without_end_is_refused():
    value: list = []
    value.append(value)

    with pytest.raises(RecordRefused):
        canonical(value)


def test_read_only_mappings_tuples_and_named_strings_are_accepted():
    class Name(StrEnum):
        ONE = "one"

    assert canonical(MappingProxyType({"b": (1, 2), "a": Name.ONE})) == b'{"a":"one","b":[1,2]}'


@given(any_text)
def test_escaped_text_is_utf_8_and_comes_back_exactly(value):
    escaped = escape_text(value)

    assert escaped.encode().decode() == escaped
    assert unescape_text(escaped) == value


@given(any_text, any_text)
def test_two_texts_never_share_an_escaped_form(one, two):
    assert (escape_text(one) == escape_text(two)) == (one == two)


def test_a_byte_that_is_not_utf_8_is_written_as_itself():
    assert escape_text(b"caf\xe9\\".decode("utf-8", "surrogateescape")) == "caf\\xe9\\\\"


@given(values(leaves | any_text, key=any_text))
def test_escaped_values_come_back_exactly(value):
    assert unescape_strings(escape_strings(value)) == value


json_values = values(leaves | any_text | st.floats(allow_nan=False) | st.integers(), key=any_text)


@given(json_values)
def test_any_json_value_has_a_digestible_form(value):
    canonical(digestible(value))


@given(json_values, json_values)
def test_different_values_have_different_digestible_forms(one, two):
    same = canonical(digestible(one)) == canonical(digestible(two))

    assert same == (typed(one) == typed(two))


def test_a_number_and_its_text_and_its_escape_are_three_things():
    forms = [
        1.5,
        "1.5",
        {"\\float": (1.5).hex()},
        1,
        1.0,
        True,
        "x" * 5000,
        {"\\sha256": "x"},
        2**60,
        hex(2**60),
    ]

    assert len({canonical(digestible(form)) for form in forms}) == len(forms)


def typed(value):
    """Equal only for values of the same JSON type, which 1, 1.0 and True are not."""
    if isinstance(value, dict):
        return {key: typed(member) for key, member in value.items()}
    if isinstance(value, list):
        return [typed(member) for member in value]
    return type(value), value.hex() if isinstance(value, float) else value

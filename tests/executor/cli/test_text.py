"""Nothing that a sandbox or a model wrote reaches the terminal as something a terminal obeys."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.cli.amounts import duration_text, size_text
from executor.cli.text import json_text, one_line, plural, table, visible


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("naïve – 日本", "naïve – 日本"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\rb", "a\\x0db"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("bad\udcff", "bad\\xff"),
        ("\U000e0001", "\\U000e0001"),
        ("two\nlines", "two\nlines"),
        ("del\x7f", "del\\x7f"),
    ],
)
def test_characters_that_do_not_print_are_spelled_out(raw, shown):
    assert visible(raw) == shown


@given(st.text())
def test_visible_text_holds_no_control_character_but_newline(raw):
    shown = visible(raw)

    assert {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs"} <= (
        {"Cc"} if "\n" in raw else set()
    )


@given(st.text(st.characters()))
def test_json_is_printable_ascii(raw):
    text = json_text({"value": raw}, indent=None)

    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == {"value": raw}


def test_a_cell_is_one_line_and_bounded():
    assert one_line("a\nb") == "a\\x0ab"
    assert len(one_line("x" * 5000)) == 100


def test_columns_line_up_and_the_last_one_is_not_padded():
    assert (
        table([("a", "1"), ("long name", "22")], header=("NAME", "N"))
        == "NAME       N\na          1\nlong name  22"
    )


def test_counting_words():
    assert (plural(1, "call"), plural(0, "call")) == ("1 call", "0 calls")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (256 * 1024**2, "256 MiB"),
        (5 * 1024**5, "5120 TiB"),
    ],
)
def test_sizes_are_told_in_binary_units(count, text):
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (59, "59 s"), (90, "1 min 30 s"), (3600, "1 h"), (3661, "1 h 1 min 1 s")],
)
def test_durations_are_told_in_hours_minutes_and_seconds(seconds, text):
    assert duration_text(seconds) == text

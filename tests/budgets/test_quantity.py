"""Sizes and times mean one thing, or are refused."""

from __future__ import annotations

import pytest
from pydantic_core import PydanticCustomError

from budgets.quantity import parse_duration, parse_size


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (12, 12),
        ("12", 12),
        ("12B", 12),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        ("512MiB", 512 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("1024TiB", 2**50),
    ],
)
def test_size(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("512MB", "512MiB"),
        ("512M", "512MiB"),
        ("1g", "1GiB"),
        ("7k", "7KiB"),
        ("5x", "units are B, KiB"),
        ("0.3KiB", None),
        ("KiB", None),
        ("-1", None),
        (-1, None),
        (2**50 + 1, None),
        (True, None),
        (1.5, None),
        (None, None),
        ([], None),
        ("9" * 400, None),
        ("", None),
    ],
)
def test_what_is_no_size_is_refused(value, hint):
    with pytest.raises(PydanticCustomError) as caught:
        parse_size(value)

    assert hint is None or hint in caught.value.context["hint"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90.0),
        (0.25, 0.25),
        ("90s", 90.0),
        ("1.5s", 1.5),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1h1m1s", 3661.0),
        ("250ms", 0.25),
        ("720h", 30 * 86400.0),
        (0.12345, 0.123),
    ],
)
def test_duration(value, seconds):
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [0, -1, "0s", "", "10", "10 m", "1d", "m", True, None, float("nan"), float("inf"), "721h", 10**400, []],
    ids=lambda value: str(value)[:8],
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(PydanticCustomError):
        parse_duration(value)

"""The guest's replies are claims: each field is checked before it becomes a result."""

from __future__ import annotations

import pytest

from sandboxes import wire
from sandboxes.base import ExecRequest
from sandboxes.errors import SandboxIntegrity

ENDED = {
    "n": b"n" * 16,
    "k": "exec",
    "exit_code": 0,
    "signal": None,
    "limit": None,
    "output": b"ab",
    "output_bytes": 2,
    "sha256": "0" * 64,
    "wall_us": 1,
    "cpu_us": 1,
    "peak_bytes": 1,
    "written_bytes": 0,
}
REQUEST = ExecRequest(argv=("x",), max_output_bytes=10)


def test_a_proper_ending_is_a_result():
    result = wire.exec_result(ENDED, request=REQUEST)

    assert (result.exit_code, result.output, result.truncated) == (0, b"ab", False)


@pytest.mark.parametrize(
    "changes",
    [
        {"k": "pong"},
        {"k": None},
        {"exit_code": None},
        {"signal": 9},
        {"limit": "wall"},
        {"exit_code": None, "limit": "patience"},
        {"exit_code": 256},
        {"exit_code": -1},
        {"exit_code": True},
        {"exit_code": None, "signal": 65},
        {"output": "ab"},
        {"output": b"a" * 11, "output_bytes": 11},
        {"output": b"ab", "output_bytes": 1},
        {"output": b"a", "output_bytes": 2},
        {"sha256": "0"},
        {"wall_us": -1},
        {"cpu_us": "1"},
        {"extra": 1},
    ],
)
def test_any_other_ending_is_an_integrity_error(changes):
    with pytest.raises(SandboxIntegrity):
        wire.exec_result({**ENDED, **changes}, request=REQUEST)


def test_a_missing_field_is_an_integrity_error():
    with pytest.raises(SandboxIntegrity):
        wire.exec_result({key: value for key, value in ENDED.items() if key != "sha256"}, request=REQUEST)


@pytest.mark.parametrize(
    "reply",
    [
        {"k": "content", "data": b"x" * 11, "size": 11, "mode": 0},
        {"k": "content", "data": b"xx", "size": 1, "mode": 0},
        {"k": "content", "data": b"", "size": 1},
        {"k": "problem", "problem": "bored", "detail": "", "target": None},
        {"k": "written", "created": True, "bytes": 0, "directories": 0},
    ],
)
def test_a_read_that_was_not_asked_for_is_an_integrity_error(reply):
    with pytest.raises(SandboxIntegrity):
        wire.content({"n": b"", **reply}, path="p", offset=0, max_bytes=10)


@pytest.mark.parametrize("entry", [None, ["p"], ["p", "file", -1], ["p", "door", 1], [1, "file", 1]])
def test_a_listing_entry_that_is_none_is_an_integrity_error(entry):
    with pytest.raises(SandboxIntegrity):
        wire.listing(
            {"n": b"", "k": "listing", "entries": [entry], "truncated": False}, path=".", max_entries=5
        )


def test_a_listing_longer_than_asked_for_is_an_integrity_error():
    entries = [["p", "file", 1]] * 3

    with pytest.raises(SandboxIntegrity):
        wire.listing(
            {"n": b"", "k": "listing", "entries": entries, "truncated": True}, path=".", max_entries=2
        )


def test_a_shell_that_nobody_looked_for_is_not_believed():
    assert wire.shell({"shell": "/bin/bash"}) == "/bin/bash"
    with pytest.raises(SandboxIntegrity):
        wire.shell({"shell": "/workspace/sh"})

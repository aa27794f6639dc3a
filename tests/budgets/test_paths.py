"""A path has one name in the workspace, or none."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.reasons import Reason
from budgets.scope import normalise, shown

segments = st.sampled_from(
    ["..", ".", "", "a", "b", "~", "é", "\udcc3\udca9", "\udcff", "etc", "work", "space", " "]
)
paths = st.builds(
    lambda root, parts: root + "/".join(parts),
    st.sampled_from(["", "/", "//", "/work/space/", "/work/", "/work/spaces/"]),
    st.lists(segments, max_size=8),
)


@given(paths)
def test_a_normal_path_never_leaves_the_root(path):
    result = normalise(path, mount="/work/space")

    if isinstance(result, str):
        assert not result.startswith("/")
        assert ".." not in result.split("/")
        assert result == "." or posixpath.normpath(result) == result


@given(paths)
def test_normalising_twice_changes_nothing(path):
    result = normalise(path, mount="/work/space")

    if isinstance(result, str) and not result.startswith("~"):
        assert normalise(result, mount="/work/space") == result


@given(paths)
def test_a_path_and_its_absolute_spelling_are_the_same_file(path):
    result = normalise(path, mount="/work/space")

    if isinstance(result, str):
        assert normalise(f"/work/space/{result}", mount="/work/space") == result


@given(st.text(max_size=20))
def test_any_text_gets_a_name_or_a_reason(path):
    result = normalise(path, mount="/workspace")

    assert isinstance(result, str) or result.code in {"scope.outside", "arguments.invalid"}


@pytest.mark.parametrize(
    ("path", "relative"),
    [
        ("a", "a"),
        ("./a//b/", "a/b"),
        ("a/../b", "b"),
        (".", "."),
        ("a/..", "."),
        ("/workspace", "."),
        ("/workspace/", "."),
        ("//workspace/./a", "a"),
        ("/workspace/a/../b", "b"),
        ("a~", "a~"),
        ("a/~", "a/~"),
        ("...", "..."),
        ("a\\..\\b", "a\\..\\b"),
    ],
)
def test_a_path_inside_has_its_relative_name(path, relative):
    assert normalise(path, mount="/workspace") == relative


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "a/../..",
        "../workspace/a",
        "/",
        "/etc/passwd",
        "/workspaces/a",
        "/workspac",
        "/workspace/..",
        "/workspace/../workspace/a",
        "/x/../workspace/a",
        "/proc/self/root/workspace/a",
        "~",
        "~/.ssh/id_rsa",
        "./~/x",
    ],
)
def test_a_path_outside_is_scope_outside(path):
    result = normalise(path, mount="/workspace")

    assert isinstance(result, Reason)
    assert result.code == "scope.outside"


@pytest.mark.parametrize("path", ["", "a\0b", "a" * 4097, "é" * 2049, "a\ud800", "\udc41"])
def test_a_text_that_cannot_name_a_file_is_an_invalid_argument(path):
    result = normalise(path, mount="/workspace")

    assert isinstance(result, Reason)
    assert result.code == "arguments.invalid"


def test_a_path_of_4096_bytes_is_still_a_path():
    assert normalise("a/" * 2047 + "aa", mount="/workspace") == "a/" * 2047 + "aa"


def test_two_spellings_of_the_same_bytes_are_one_path():
    assert normalise("caf\udcc3\udca9", mount="/workspace") == "café"
    assert normalise("\udcff", mount="/workspace") == "\udcff"


def test_what_a_detail_shows_of_a_path_is_short_printable_ascii():
    text = shown("\x1b[2Jé\udcff" + "a" * 5000)

    assert text.isascii() is False or len(text) < 700
    assert "\x1b" not in text
    assert len(text) < 700

"""Globs match by segment, and a glob that could mislead its author is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.glob import GlobSet, glob_covers, glob_matches, glob_problem
from tests.budgets.making import globs, relative_paths


def reference_segment(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(reference_segment(pattern[1:], name[at:]) for at in range(len(name) + 1))
    if pattern[0] == "[" and "]" in pattern[2:]:
        end = pattern.index("]", 3 if pattern[1] in "!^" else 2)
        negated, members = pattern[1] in "!^", pattern[1:end].lstrip("!^")
        return (
            bool(name) and (name[0] in members) != negated and reference_segment(pattern[end + 1 :], name[1:])
        )
    return bool(name) and pattern[0] in ("?", name[0]) and reference_segment(pattern[1:], name[1:])


def reference(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(reference(pattern[1:], path[at:]) for at in range(len(path) + 1))
    return bool(path) and reference_segment(pattern[0], path[0]) and reference(pattern[1:], path[1:])


@given(globs, relative_paths)
def test_a_glob_matches_what_a_plain_reference_matcher_matches(pattern, path):
    assert glob_matches(pattern, path) == reference(pattern.split("/"), path.split("/"))


@given(st.lists(globs, max_size=4), relative_paths, st.booleans())
def test_a_set_matches_when_one_of_its_globs_does(patterns, path, covers_below):
    segments = path.split("/")
    heads = ["/".join(segments[:end]) for end in range(1, len(segments) + 1)] if covers_below else [path]

    found = GlobSet.of(patterns, covers_below=covers_below).matches(path)

    # A directory above includes the root for a glob such as **.
    expected = any(reference(glob.split("/"), head.split("/")) for glob in patterns for head in heads)
    assert found == expected


@given(
    st.text(alphabet="ab*?[]!", min_size=1, max_size=8).filter(lambda text: "**" not in text), relative_paths
)
def test_no_glob_without_two_stars_crosses_a_slash(pattern, path):
    assert not glob_matches(pattern, f"{path}/x")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "src/a.py", False),
        ("src/*", "src", False),
        ("src/*", "src/a/b", False),
        ("src/**", "src", True),
        ("src/**", "src/a/b", True),
        ("src/**", "srcs/a", False),
        ("**", ".", True),
        ("*", ".", False),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("a/**/b", "a/b", True),
        ("a/**/**/b", "a/x/y/b", True),
        ("a/**/b/**/c", "a/b/x/b/y/c", True),
        ("a/**/b/**/c", "a/b/x/b/y/d", False),
        ("out/*", "out/../../etc/passwd", False),
        (".env", ".env.local", False),
        (".env", "x.env", False),
        ("a.c", "abc", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[]]x", "]x", True),
        ("[!]]x", "]x", False),
        ("[*]", "*", True),
        ("[*]", "a", False),
        ("[**]", "*", True),
        ("[-a]", "-", True),
        ("[--0]", "/", False),
        ("[+--]", "-", True),
        ("[\\]", "\\", True),
        ("[z-a]", "b", False),
        ("[a", "[a", True),
        ("a\nb*", "a\nbc", True),
        ("?", "\n", True),
        ("*", "\udcff\udcfe", True),
        ("é", "e\u0301", False),
        ("A", "a", False),
    ],
)
def test_glob_by_example(pattern, path, matches):
    assert glob_matches(pattern, path) is matches


def test_a_hostile_path_costs_no_more_than_its_length():
    path = "/".join(["a"] * 2000)

    assert not glob_matches("**/a/**/a/**/a/**/a/**/a/**/b", path)
    assert not glob_matches("*a*a*a*a*a*a*a*a*b", "a" * 4000)


@pytest.mark.parametrize(
    ("pattern", "said", "hint"),
    [
        ("", "between 1 and", None),
        ("a" * 1025, "between 1 and", None),
        ("a\nb", "control characters", None),
        ("a\x7f", "control characters", None),
        ("/etc/*", "leaves the workspace", "relative"),
        ("../x", "leaves the workspace", "relative"),
        ("a/../../x", "leaves the workspace", "relative"),
        ("~/x", "leaves the workspace", "relative"),
        ("!a", "negated", "deny"),
        ("src/", "does not end in", "'src/**'"),
        ("./a", "no empty and no '.' segments", "'a'"),
        ("a//b", "no empty and no '.' segments", "'a/b'"),
        (".", "no empty and no '.' segments", "'**'"),
        ("a**", "whole segments", "'a*'"),
        ("***", "whole segments", "'*'"),
        ("[a", "not closed", "[[]"),
        ("[[:alpha:]]", "named character classes", "range"),
        ("[z-a]", "backwards", None),
        ("{a,b}", "has no meaning", "[{]"),
        ("a}", "has no meaning", "[}]"),
        ("a\\b", "has no meaning", "[\\]"),
    ],
)
def test_a_glob_that_could_mislead_is_refused(pattern, said, hint):
    problem = glob_problem(pattern)

    assert problem is not None
    assert said in problem.message
    assert problem.hint is None if hint is None else hint in problem.hint


@pytest.mark.parametrize(
    "pattern", ["**", "*", "a/**/b", "[a-z]*.py", "[{]", "[\\]", "x y", ".env", "[*]", "[**]"]
)
def test_a_plain_glob_is_accepted(pattern):
    assert glob_problem(pattern) is None


@given(globs, globs, relative_paths)
def test_a_glob_covers_another_only_if_it_matches_all_that_the_other_does(wide, narrow, path):
    if glob_covers(wide, narrow) and glob_matches(narrow, path):
        assert glob_matches(wide, path)


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("**", "a/*/**", True),
        ("src/**", "src/a/*.py", True),
        ("src/*", "src/a", True),
        ("src/*", "src/*.py", True),
        ("src/*.py", "src/*", False),
        ("src/*", "src/**", False),
        ("*", "**", False),
        ("a", "a", True),
        ("a/*/c", "a/**/c", False),
        ("**/c", "a/**/c", True),
        ("a", "a/b", False),
    ],
)
def test_cover_by_example(wide, narrow, covers):
    assert glob_covers(wide, narrow) is covers


def test_a_guarded_name_is_covered_by_itself_alone():
    assert glob_covers(".git/**", ".git/config", guarded=("**/.git",))
    assert not glob_covers("**", ".git/config", guarded=("**/.git",))
    assert not glob_covers("*/config", ".git/config", guarded=("**/.git",))
    assert glob_covers("**", "src/config", guarded=("**/.git",))

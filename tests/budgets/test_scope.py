"""Deny wins, what is protected is written only by name, and an empty list allows nothing."""

from __future__ import annotations

import pytest
from hypothesis import given

from budgets.call import PathUse
from budgets.protect import DEFAULT_PROTECT
from tests.budgets.making import make_remit, relative_paths, remits


def scope_of(**rules):
    return make_remit(scope=rules).scope.compiled


def code_of(scope, path, access="write"):
    reason = scope.object_to(PathUse(path=path, access=access))
    return None if reason is None else reason.code


@given(relative_paths)
def test_an_empty_scope_allows_no_path(path):
    scope = scope_of()

    assert code_of(scope, path, "read") == "scope.read"
    assert code_of(scope, path, "write") in {"scope.write", "scope.protect"}


@given(remits(), relative_paths)
def test_the_questions_agree_with_the_objection(remit, path):
    scope = remit.scope.compiled

    assert scope.write_allowed(path) == (code_of(scope, path, "write") is None)
    assert scope.readable(path) == (code_of(scope, path, "read") is None)
    assert (scope.growth(path) is None) == scope.write_allowed(path)


@given(remits(), relative_paths)
def test_deny_wins_over_every_other_rule_and_covers_what_lies_below(remit, path):
    scope = remit.scope.compiled

    if scope.denied(path):
        for below in (path, f"{path}/x", f"{path}/x/y"):
            assert code_of(scope, below, "read") == "scope.deny"
            assert code_of(scope, below, "write") == "scope.deny"


def test_outside_is_said_first():
    scope = scope_of(read=["**"], write=["**"], deny=["**"])

    assert code_of(scope, "../x") == "scope.outside"
    assert code_of(scope, "a\0", "read") == "arguments.invalid"


def test_a_write_scope_says_nothing_about_reading():
    scope = scope_of(write=["a"])

    assert code_of(scope, "a", "write") is None
    assert code_of(scope, "a", "read") == "scope.read"


def test_a_denied_name_that_does_not_exist_is_denied_all_the_same():
    scope = scope_of(read=["**"], write=["**"], deny=[".env", "**/secret/**"])

    assert code_of(scope, ".env", "read") == "scope.deny"
    assert code_of(scope, "a/secret", "read") == "scope.deny"
    assert code_of(scope, "a/secret/b/c", "read") == "scope.deny"
    assert code_of(scope, ".env.example", "read") is None


def test_a_denied_name_spelled_in_escaped_bytes_is_denied():
    scope = scope_of(read=["**"], deny=["é"])

    assert code_of(scope, "\udcc3\udca9", "read") == "scope.deny"


@pytest.mark.parametrize("glob", DEFAULT_PROTECT)
def test_a_protected_name_is_not_written_at_any_depth(glob):
    name = glob.removeprefix("**/")
    scope = scope_of(read=["**"], write=["**"])

    for path in (name, f"a/b/{name}", f"{name}/below", f"a/{name}/below/it"):
        assert code_of(scope, path, "write") == "scope.protect"
        assert code_of(scope, path, "read") is None


@pytest.mark.parametrize(
    ("write", "path", "code"),
    [
        (".claude/settings.json", ".claude/settings.json", None),
        (".claude/settings.json", ".claude/other.json", "scope.protect"),
        (".claude/**", ".claude/a/b", None),
        (".claude/**", ".claude/.git/config", "scope.protect"),
        (".claude/**", "sub/.claude/a", "scope.protect"),
        ("**/.claude/*", "sub/.claude/a", None),
        (".clau[d]e/*", ".claude/a", "scope.protect"),
        ("*/settings.json", ".claude/settings.json", "scope.protect"),
        (".github/workflows/ci.yml", ".github/workflows/ci.yml", None),
        (".github/*/ci.yml", ".github/workflows/ci.yml", "scope.protect"),
        (".github/**", ".github/CODEOWNERS", None),
        (".git", ".git", None),
        (".git", ".git/config", "scope.protect"),
    ],
)
def test_protection_is_lifted_only_where_write_names_what_is_protected(write, path, code):
    assert code_of(scope_of(write=[write]), path) == code


def test_a_literal_in_the_place_of_a_wildcard_name_is_no_name():
    scope = scope_of(write=["[a]"], protect=["[[]a]", "a"])

    assert code_of(scope, "a") == "scope.protect"


def test_growth_tells_protected_paths_from_others():
    scope = scope_of(write=["src/**"], deny=["src/key"])

    assert scope.growth("src/a") is None
    assert scope.growth("src") is None
    assert scope.growth("other") == "growth.beyond_scope"
    assert scope.growth("src/key") == "growth.protected"
    assert scope.growth(".git/hooks/pre-commit") == "growth.protected"


def test_details_name_the_rule_and_bound_the_path():
    scope = scope_of(read=list("abcdefg"), write=["**"], deny=["k"])

    assert "denied by k" in scope.object_to(PathUse(path="k/x", access="read")).detail
    assert "protected by **/.git" in scope.object_to(PathUse(path=".git/x", access="write")).detail
    assert scope.object_to(PathUse(path="z", access="read")).detail.endswith("a, b, c, d, e, …")
    assert scope_of().object_to(PathUse(path="z", access="read")).detail.endswith("nothing")


def test_another_mount_point_can_be_asked_for():
    scope = scope_of(mount="/testbed")

    assert scope.normalise("/testbed/a") == "a"
    assert scope.normalise("/elsewhere/a", mount="/elsewhere") == "a"

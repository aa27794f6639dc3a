from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from budgets.scope import Scope
from executor.covers import covered, resolved
from executor.errors import RemitUnenforceable


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture
def cover(tree):
    def found(*, deny=(), protect=(), write=(), mount="/workspace"):
        rules = SimpleNamespace(mount=mount, read=("**",), write=write, deny=deny, protect=protect)
        seen = covered(tree, Scope.of(rules), write=write)
        return set(seen.hidden), set(seen.read_only)

    return found


def put(tree, *names):
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)


def link(tree, name, content):
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).symlink_to(content)


@pytest.mark.parametrize(
    ("content", "target"),
    [
        ("conf/real", "conf/real"),
        ("./conf//../conf/real", "conf/real"),
        ("chain", "conf/real"),
        ("folder/real", "conf/real"),
        ("folder/../conf/real", "conf/real"),
        ("/workspace/conf/real", "conf/real"),
        ("../workspace/conf/real", "conf/real"),
        ("../../../../workspace/conf/real", "conf/real"),
        ("conf", "conf"),
        (".", "."),
        ("/etc/passwd", None),
        ("../elsewhere", None),
        ("conf/missing", None),
        ("conf/real/below", None),
        ("circle", None),
    ],
)
def test_a_link_is_resolved_as_the_sandbox_resolves_it(tree, content, target):
    put(tree, "conf/real")
    link(tree, "chain", "folder/real")
    link(tree, "folder", "conf")
    link(tree, "circle", "circle")
    link(tree, "link", content)

    assert resolved(tree, "/workspace", "link") == target


def test_a_link_to_the_place_on_the_host_leads_nowhere_inside(tree):
    put(tree, "real")
    link(tree, "link", str(tree / "real"))

    assert resolved(tree, "/workspace", "link") is None
    assert resolved(tree, str(tree), "link") == "real"


def test_what_a_covered_link_leads_to_is_covered(tree, cover):
    put(tree, "conf/key", "conf/hook", "conf/folder/x", "conf/other")
    link(tree, ".env", "conf/key")
    link(tree, "hook", "conf/hook")
    link(tree, "kept", "conf/folder")
    link(tree, "outside", "/etc/passwd")

    assert cover(deny=(".env", "outside"), protect=("hook", "kept")) == (
        {"conf/key"},
        {"conf/hook", "conf/folder"},
    )


def test_a_name_that_is_covered_behind_a_linked_directory_is_found(tree, cover):
    put(tree, "real/.env", "real/sub/key", "real/sub/deep/key", "real/flow/x", "real/free")
    link(tree, "conf", "real")
    link(tree, ".ci", "real")

    assert cover(deny=("conf/.env", "conf/**/key"), protect=("**/.ci/flow",)) == (
        {"real/.env", "real/sub/key", "real/sub/deep/key"},
        {"real/flow"},
    )


def test_what_is_denied_in_a_protected_directory_is_hidden_there(tree, cover):
    put(tree, ".git/config", ".git/secret/key", ".git/hooks/x", "hooks/x")
    link(tree, ".git/hooks/y", "../../hooks/x")

    assert cover(deny=("**/secret",), protect=("**/.git",)) == ({".git/secret"}, {".git", "hooks/x"})


def test_no_cover_lies_below_what_is_hidden(tree, cover):
    put(tree, "secret/key", "secret/hook", "kept/deep/hook")
    link(tree, ".env", "secret/key")
    link(tree, "hook", "secret/hook")
    link(tree, "other", "kept/deep/hook")

    assert cover(deny=("secret", ".env"), protect=("hook", "other", "kept")) == ({"secret"}, {"kept"})


def test_write_lifts_the_protection_of_a_target_that_it_names(tree, cover):
    put(tree, "docs/rules")
    link(tree, "rules", "docs/rules")

    assert cover(protect=("rules",), write=("docs/**",)) == (set(), {"docs/rules"})
    assert cover(protect=("rules",), write=("docs/rules",)) == (set(), set())


def test_a_wildcard_in_write_does_not_open_a_protected_directory(tree, cover):
    put(tree, ".git/a", ".git/b")

    assert cover(protect=("**/.git",), write=("*/*",)) == (set(), {".git"})


def test_a_denied_link_to_what_holds_it_is_refused(tree, cover):
    link(tree, "sub/up", "..")

    with pytest.raises(RemitUnenforceable, match="sub/up"):
        cover(deny=("sub/up",))
    assert cover(protect=("sub/up",)) == (set(), set())


def test_linked_directories_that_lead_in_circles_end(tree, cover):
    for name in "abcdef":
        put(tree, f"{name}/key")
        for other in "abcdef":
            link(tree, f"{name}/to_{other}", f"../{other}")
    started = time.monotonic()

    hidden, _ = cover(deny=("a/**/key",))

    assert hidden == {f"{name}/key" for name in "abcdef"}
    assert time.monotonic() - started < 10


def test_more_linked_directories_than_can_be_looked_through_are_refused(tree, cover):
    for name in "abcdefgh":
        for other in "abcdefgh":
            link(tree, f"{name}/to_{other}", f"../{other}")

    with pytest.raises(RemitUnenforceable, match="4096"):
        cover(deny=("a/**/key",))

"""Each kind of change, as both strategies see it, and layers that a hostile program made."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys

import pytest

from sandboxes.base import Layer
from sandboxes.workspace import (
    Change,
    LayerBounds,
    LayerUnreadable,
    changed_paths,
    export_changes,
    read_changes,
)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def lower(tmp_path):
    root = tmp_path / "lower"
    (root / "dir" / "inner").mkdir(parents=True)
    (root / "file").write_bytes(b"old\n")
    (root / "dir" / "one").write_bytes(b"1")
    (root / "dir" / "inner" / "two").write_bytes(b"2")
    (root / "link").symlink_to("file")
    for path in (root / "file", root / "dir" / "one", root / "dir" / "inner" / "two"):
        path.chmod(0o644)
    for path in (root / "dir", root / "dir" / "inner"):
        path.chmod(0o755)
    return root


@pytest.fixture
def changes_of(lower, change_tree, strategy):
    def changes(*operations):
        layer, _ = change_tree(lower, list(operations), strategy=strategy)
        found = read_changes(layer)
        assert changed_paths(layer) == {change.path for change in found}
        return found

    return changes


def test_nothing_changed(changes_of):
    assert changes_of() == ()


def test_a_new_file(changes_of):
    assert changes_of(["write", ["new"], "x", 0o755]) == (
        Change(path="new", change="added", kind="file", mode=0o755, size=1, sha256=sha256(b"x")),
    )


def test_a_changed_file(changes_of):
    assert changes_of(["write", ["file"], "new\n", 0o644]) == (
        Change(
            path="file",
            change="modified",
            kind="file",
            mode=0o644,
            size=4,
            sha256=sha256(b"new\n"),
            before_kind="file",
            before_mode=0o644,
            before_sha256=sha256(b"old\n"),
        ),
    )


def test_a_file_that_was_opened_or_rewritten_with_the_same_content_is_no_change(changes_of):
    assert changes_of(["touch", ["file"]], ["write", ["dir", "one"], "1", 0o644]) == ()


def test_a_mode_alone_is_a_change(changes_of):
    file, directory = changes_of(["chmod", ["file"], 0o755], ["chmod", ["dir"], 0o700])[::-1]

    assert (file.path, file.change, file.mode, file.before_mode) == ("file", "modified", 0o755, 0o644)
    assert file.sha256 == file.before_sha256 == sha256(b"old\n")
    assert (directory.path, directory.mode, directory.before_mode) == ("dir", 0o700, 0o755)


def test_a_deleted_tree_names_everything_that_was_in_it(changes_of):
    found = changes_of(["remove", ["dir"]])

    assert [(change.path, change.change, change.kind) for change in found] == [
        ("dir", "deleted", "directory"),
        ("dir/inner", "deleted", "directory"),
        ("dir/inner/two", "deleted", "file"),
        ("dir/one", "deleted", "file"),
    ]
    assert found[2].before_sha256 == sha256(b"2")


def test_a_directory_made_anew_hides_what_was_below(changes_of):
    found = changes_of(
        ["remove", ["dir"]],
        ["mkdir", ["dir"], 0o755],
        ["mkdir", ["dir", "inner"], 0o755],
        ["write", ["dir", "one"], "1", 0o644],
    )

    assert [(change.path, change.change) for change in found] == [("dir/inner/two", "deleted")]


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([["remove", ["file"]], ["mkdir", ["file"], 0o755]], [("file", "modified", "directory", "file")]),
        ([["remove", ["file"]], ["symlink", ["file"], "x"]], [("file", "modified", "symlink", "file")]),
        ([["remove", ["link"]], ["write", ["link"], "x", 0o644]], [("link", "modified", "file", "symlink")]),
        ([["remove", ["link"]], ["symlink", ["link"], "y"]], [("link", "modified", "symlink", "symlink")]),
        ([["remove", ["link"]], ["symlink", ["link"], "file"]], []),
        ([["remove", ["file"]], ["mkfifo", ["file"]]], [("file", "modified", "other", "file")]),
        (
            [["remove", ["dir"]], ["write", ["dir"], "x", 0o644]],
            [
                ("dir", "modified", "file", "directory"),
                ("dir/inner", "deleted", "directory", "directory"),
                ("dir/inner/two", "deleted", "file", "file"),
                ("dir/one", "deleted", "file", "file"),
            ],
        ),
    ],
)
def test_a_change_of_type(changes_of, operations, expected):
    found = changes_of(*operations)

    assert [(c.path, c.change, c.kind, c.before_kind) for c in found] == expected


def test_a_renamed_directory_is_deletions_and_additions(changes_of):
    found = changes_of(["rename", ["dir"], ["moved"]])

    assert [(change.path, change.change) for change in found] == [
        ("dir", "deleted"),
        ("dir/inner", "deleted"),
        ("dir/inner/two", "deleted"),
        ("dir/one", "deleted"),
        ("moved", "added"),
        ("moved/inner", "added"),
        ("moved/inner/two", "added"),
        ("moved/one", "added"),
    ]


def test_links_empty_directories_and_odd_names(changes_of):
    found = changes_of(
        ["symlink", ["-rf"], "\xff"],
        ["mkdir", ["n\nl"], 0o711],
        ["write", ["\xff\xfe"], "", 0o600],
        ["mkfifo", ["p"]],
    )

    assert [(c.path, c.kind, c.mode, c.target) for c in found] == [
        ("-rf", "symlink", None, "\udcff"),
        ("n\nl", "directory", 0o711, None),
        ("p", "other", None, None),
        ("\udcff\udcfe", "file", 0o600, None),
    ]


@pytest.fixture
def hand_made(tmp_path, lower):
    """An upper directory made by hand, with what a hostile program or a strange kernel could leave there."""
    upper = tmp_path / "upper"
    upper.mkdir()
    fd = os.open(upper, os.O_RDONLY)
    yield upper, Layer(upper_fd=fd, lower=lower, strategy="overlay")
    os.close(fd)


def test_a_file_that_nobody_feeds_is_not_waited_for(hand_made):
    upper, layer = hand_made
    os.mkfifo(upper / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(upper / "socket"))

    assert [(c.path, c.kind) for c in read_changes(layer)] == [("fifo", "other"), ("socket", "other")]


def test_set_user_id_never_leaves_a_sandbox(hand_made):
    upper, layer = hand_made
    (upper / "tool").write_bytes(b"")
    (upper / "tool").chmod(0o6755)

    assert read_changes(layer)[0].mode == 0o755


def test_files_that_are_nearly_all_hole_are_bounded_together(hand_made, tmp_path):
    upper, layer = hand_made
    for name in ("a", "b", "c"):
        with (upper / name).open("wb") as file:
            file.truncate(1 << 20)
    (upper / "d").write_bytes(b"x" * 100)

    found = read_changes(layer, bounds=LayerBounds(hole_bytes=(1 << 20) + 5000))

    assert [(c.path, c.kind) for c in found] == [("a", "file"), ("b", "other"), ("c", "other"), ("d", "file")]
    assert sum(f.stat().st_blocks for f in export_holes(layer, tmp_path).rglob("*")) < 200


def export_holes(layer, tmp_path):
    export_changes(layer, tmp_path / "out")
    return tmp_path / "out"


def test_an_absurdly_long_path_is_named_and_not_entered(hand_made):
    upper, layer = hand_made
    (upper / "x" / "y" / "z").mkdir(parents=True)

    found = read_changes(layer, bounds=LayerBounds(path_bytes=2))

    assert [(c.path, c.kind) for c in found] == [("x", "directory"), ("x/y", "other")]


def test_more_paths_than_can_be_listed_are_refused(hand_made):
    upper, layer = hand_made
    for number in range(20):
        (upper / f"file{number:02}").touch()

    with pytest.raises(LayerUnreadable):
        read_changes(layer, bounds=LayerBounds(listed_bytes=100))


@pytest.mark.parametrize(("mark", "value"), [("redirect", b"/other"), ("opaque", b"x")])
def test_a_mark_that_no_backend_makes_is_refused(hand_made, mark, value):
    upper, layer = hand_made
    (upper / "dir").mkdir()
    os.setxattr(upper / "dir", f"user.overlay.{mark}", value)

    with pytest.raises(LayerUnreadable):
        read_changes(layer)


def test_a_file_without_its_content_is_refused(hand_made):
    upper, layer = hand_made
    (upper / "file").touch()
    os.setxattr(upper / "file", "user.overlay.metacopy", b"")

    with pytest.raises(LayerUnreadable):
        read_changes(layer)


def test_a_tree_of_four_thousand_levels_is_read_exported_and_applied(hand_made, tmp_path):
    _, layer = hand_made
    with TreeBuilder(layer.upper_fd) as builder:
        for _ in range(4000):
            builder.down(b"d")
        builder.file(b"leaf", b"deep")
    try:
        found = read_changes(layer)

        assert len(found) == 4001
        assert found[-1].path == "d/" * 4000 + "leaf"
        assert len(changed_paths(layer)) == 4001
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "upper" / "d")], check=True)


class TreeBuilder:
    def __init__(self, fd):
        self.fd = os.dup(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def down(self, name):
        os.mkdir(name, dir_fd=self.fd)
        child = os.open(name, os.O_RDONLY, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = child

    def file(self, name, data):
        fd = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=self.fd)
        os.write(fd, data)
        os.close(fd)


AS_ORDINARY_USER = """
import os, sys
from pathlib import Path
from sandboxes.base import Layer
from sandboxes.workspace import apply_changes, export_changes
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(64999); os.setuid(64999)
base = Path(sys.argv[1])
(base / "lower").mkdir(); (base / "upper").mkdir(); (base / "target").mkdir()
upper = base / "upper"
(upper / "shut").mkdir(); (upper / "shut" / "file").write_text("x"); (upper / "shut" / "deep").mkdir()
(upper / "shut" / "file").chmod(0); (upper / "shut" / "deep").chmod(0o300); (upper / "shut").chmod(0)
layer = Layer(upper_fd=os.open(upper, os.O_RDONLY), lower=base / "lower", strategy="overlay")
manifest = export_changes(layer, base / "changes")
print([(c.path, oct(c.mode), c.size) for c in manifest.changes])
for tree in (upper, base / "target"):
    outcome = apply_changes(manifest, base / "target").outcome
    print(oct((tree / "shut").stat().st_mode & 0o777), outcome)
for path in ("upper/shut", "target/shut"):
    (base / path).chmod(0o700); (base / path / "deep").chmod(0o700)
"""


def test_an_ordinary_user_reads_and_applies_what_shuts_its_owner_out(tmp_path_factory):
    base = tmp_path_factory.mktemp("ordinary")
    home = base / "home"
    home.mkdir()
    for path in (base, *base.parents):
        if path.stat().st_uid == os.getuid() and len(path.parts) > 2:
            path.chmod(path.stat().st_mode | 0o711)
    if os.geteuid() == 0:
        os.chown(home, 64999, 64999)
    if not os.access(sys.executable, os.X_OK):
        pytest.skip("the interpreter is not for everybody")

    done = subprocess.run(
        [sys.executable, "-c", AS_ORDINARY_USER, str(home)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[('shut', '0o0', None), ('shut/deep', '0o300', None), ('shut/file', '0o0', 1)]",
        "0o0 applied",
        "0o0 already_applied",
    ]

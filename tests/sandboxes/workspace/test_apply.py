"""Applying writes all or nothing, follows no link, and can be repeated."""

from __future__ import annotations

import os
import shutil

import pytest

from sandboxes.workspace import ApplyFailed, ChangesInvalid, apply_changes, export_changes, render_diff


@pytest.fixture
def lower(tmp_path):
    root = tmp_path / "lower"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "one").write_bytes(b"1\n")
    (root / "file").write_bytes(b"old\n")
    (root / "link").symlink_to("file")
    for path, mode in (("dir", 0o755), ("dir/one", 0o644), ("file", 0o644)):
        (root / path).chmod(mode)
    return root


@pytest.fixture
def tree(lower, tmp_path):
    shutil.copytree(lower, tmp_path / "tree", symlinks=True)
    return tmp_path / "tree"


@pytest.fixture
def manifest_of(lower, change_tree, tmp_path):
    def manifest(*operations):
        layer, _ = change_tree(lower, list(operations), strategy="copy")
        return export_changes(layer, tmp_path / "changes")

    return manifest


def assert_conflict(tree_ops, manifest, tree, *paths):
    before = tree_ops.snapshot(tree)

    report = apply_changes(manifest, tree)

    assert report.outcome == "conflict"
    assert not report.applied
    assert [conflict.path for conflict in report.conflicts] == list(paths)
    assert tree_ops.snapshot(tree) == before


def test_nothing_to_apply(manifest_of, tree):
    report = apply_changes(manifest_of(), tree)

    assert (report.outcome, report.written) == ("applied", ())


def test_applied_twice_is_applied_once(manifest_of, tree):
    manifest = manifest_of(["write", ["file"], "new", 0o755], ["remove", ["dir"]])

    first, second = apply_changes(manifest, tree), apply_changes(manifest, tree)

    assert (first.outcome, first.written) == ("applied", ("dir", "dir/one", "file"))
    assert (second.outcome, second.written) == ("already_applied", ())
    assert (tree / "file").read_bytes() == b"new"


@pytest.mark.parametrize(
    "move",
    [
        lambda tree: (tree / "file").write_bytes(b"moved"),
        lambda tree: (tree / "file").chmod(0o600),
        lambda tree: (tree / "file").unlink(),
        lambda tree: ((tree / "file").unlink(), (tree / "file").symlink_to("/etc/passwd")),
        lambda tree: ((tree / "file").unlink(), (tree / "file").mkdir()),
        lambda tree: ((tree / "file").unlink(), os.mkfifo(tree / "file")),
    ],
)
def test_a_tree_that_moved_is_a_conflict_and_nothing_is_written(tree_ops, manifest_of, tree, move):
    manifest = manifest_of(["write", ["file"], "new", 0o644], ["write", ["other"], "x", 0o644])
    move(tree)

    assert_conflict(tree_ops, manifest, tree, "file")


def test_something_new_in_the_place_of_a_new_file_is_a_conflict(tree_ops, manifest_of, tree):
    manifest = manifest_of(["write", ["new"], "ours", 0o644])
    (tree / "new").write_bytes(b"theirs")

    assert_conflict(tree_ops, manifest, tree, "new")


def test_a_deleted_directory_that_got_a_new_file_is_a_conflict(tree_ops, manifest_of, tree):
    manifest = manifest_of(["remove", ["dir"]])
    (tree / "dir" / "theirs").write_bytes(b"")

    assert_conflict(tree_ops, manifest, tree, "dir")


def test_a_missing_parent_is_a_conflict(tree_ops, manifest_of, tree):
    manifest = manifest_of(["write", ["dir", "new"], "x", 0o644])
    shutil.rmtree(tree / "dir")

    assert_conflict(tree_ops, manifest, tree, "dir/new")


def test_a_link_in_the_place_of_a_directory_is_not_followed(tree_ops, manifest_of, tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    manifest = manifest_of(["write", ["dir", "new"], "x", 0o644], ["write", ["dir", "one"], "x", 0o644])
    shutil.rmtree(tree / "dir")
    (tree / "dir").symlink_to(outside)

    assert_conflict(tree_ops, manifest, tree, "dir/new", "dir/one")
    assert list(outside.iterdir()) == []


def test_a_replaced_link_leaves_what_it_led_to(manifest_of, tree):
    manifest = manifest_of(["remove", ["link"]], ["write", ["link"], "x", 0o644])

    apply_changes(manifest, tree)

    assert (tree / "file").read_bytes() == b"old\n"
    assert (tree / "link").read_bytes() == b"x"
    assert not (tree / "link").is_symlink()


def test_an_apply_that_broke_off_is_finished_by_the_next(manifest_of, tree, monkeypatch):
    operations = [["remove", ["file"]], ["mkdir", ["file"], 0o755], ["write", ["file", "in"], "x", 0o644]]
    manifest = manifest_of(*operations, ["write", ["z"], "z", 0o600], ["remove", ["dir"]])
    rename = os.rename

    def full(source, target, **where):
        if target == b"z":
            raise OSError(28, "No space left on device")
        rename(source, target, **where)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ApplyFailed) as failed:
        apply_changes(manifest, tree)
    monkeypatch.undo()
    report = apply_changes(manifest, tree)

    assert failed.value.hint
    assert report.outcome == "applied"
    assert (tree / "z").read_bytes() == b"z"
    assert sorted(path.name for path in tree.rglob("*")) == ["file", "in", "link", "z"]


def test_damaged_content_is_not_put_in_place(manifest_of, tree):
    manifest = manifest_of(["write", ["file"], "new", 0o644])
    manifest.blob_path(manifest.changes[0].sha256).write_bytes(b"evil")

    with pytest.raises(ChangesInvalid):
        apply_changes(manifest, tree)

    assert (tree / "file").read_bytes() == b"old\n"
    assert sorted(path.name for path in tree.iterdir()) == ["dir", "file", "link"]


def test_what_cannot_be_carried_over_is_reported_and_shown(manifest_of, tree, lower):
    manifest = manifest_of(["mkfifo", ["pipe"]], ["write", ["new"], "x\n", 0o644])

    report = apply_changes(manifest, tree)

    assert (report.outcome, report.written, report.skipped) == ("applied", ("new",), ("pipe",))
    assert "added pipe (not a file, directory or link: not carried over)" in render_diff(manifest, lower)
    assert not (tree / "pipe").exists()


def test_a_mode_alone_keeps_the_file(manifest_of, tree):
    manifest = manifest_of(["chmod", ["file"], 0o755], ["chmod", ["dir"], 0o700])
    inode = (tree / "file").stat().st_ino
    (tree / "dir").chmod(0o2755)

    apply_changes(manifest, tree)

    assert (tree / "file").stat().st_ino == inode
    assert (tree / "file").stat().st_mode & 0o7777 == 0o755
    assert (tree / "dir").stat().st_mode & 0o7777 == 0o2700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses owners")
def test_root_leaves_each_directory_to_its_owner(manifest_of, tree):
    operations = [["mkdir", ["dir", "d"], 0o755], ["write", ["dir", "d", "f"], "x", 0o644]]
    manifest = manifest_of(*operations, ["symlink", ["dir", "l"], "f"], ["write", ["file"], "x", 0o644])
    os.chown(tree / "dir", 1234, 1235)
    os.chown(tree / "file", 1236, 1237)

    apply_changes(manifest, tree)

    for path in ("dir/d", "dir/d/f", "dir/l"):
        status = (tree / path).lstat()
        assert (status.st_uid, status.st_gid) == (1234, 1235)
    assert ((tree / "file").stat().st_uid, (tree / "file").stat().st_gid) == (1236, 1237)

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxes.workspace import export_changes, render_diff
from sandboxes.workspace.diff import _hunks, _split

NO_NEWLINE = "\\ No newline at end of file\n"


@pytest.fixture
def lower(tmp_path):
    root = tmp_path / "lower"
    root.mkdir()
    (root / "file").write_bytes(b"".join(b"line %d\n" % number for number in range(20)))
    (root / "file").chmod(0o644)
    (root / "binary").write_bytes(b"\0one")
    (root / "binary").chmod(0o644)
    (root / "link").symlink_to("file")
    return root


@pytest.fixture
def diff_of(lower, change_tree, tmp_path):
    def diff(*operations):
        layer, _ = change_tree(lower, list(operations), strategy="copy")
        return render_diff(export_changes(layer, tmp_path / "changes"), lower)

    return diff


def test_no_changes_give_no_diff(diff_of):
    assert diff_of() == ""


def test_a_changed_line_is_shown_with_its_neighbours(diff_of):
    content = "".join(f"line {number}\n" for number in range(20)).replace("line 10\n", "line ten\n")

    assert diff_of(["write", ["file"], content, 0o644]) == (
        "modified file file\n--- a/file\n+++ b/file\n@@ -8,7 +8,7 @@\n"
        " line 7\n line 8\n line 9\n-line 10\n+line ten\n line 11\n line 12\n line 13\n"
    )


def test_new_deleted_and_linked(diff_of):
    shown = diff_of(
        ["write", ["new"], "a\nb", 0o755],
        ["mkdir", ["empty"], 0o700],
        ["remove", ["link"]],
        ["symlink", ["to"], "x"],
    )

    assert shown == (
        "added directory empty (mode 700)\n"
        f"deleted symlink link\n--- a/link\n+++ /dev/null\n@@ -1 +0,0 @@\n-file\n{NO_NEWLINE}"
        f"added file new (mode 755)\n--- /dev/null\n+++ b/new\n@@ -0,0 +1,2 @@\n+a\n+b\n{NO_NEWLINE}"
        f"added symlink to\n--- /dev/null\n+++ b/to\n@@ -0,0 +1 @@\n+x\n{NO_NEWLINE}"
    )


def test_a_mode_is_shown_and_binary_content_is_summed_up(diff_of):
    shown = diff_of(["chmod", ["file"], 0o755], ["write", ["binary"], "\0two", 0o644])

    assert "modified file file (mode 644 -> 755)\n" in shown
    assert "modified file binary\ncontent not shown: 4 bytes, sha256 " in shown


def test_a_terminal_gets_no_control_characters(diff_of):
    shown = diff_of(["write", ["\x1b]0;x\x07"], "\x1b[2Jevil\r\xe2\x80\xaegnp\x9b\n", 0o644])

    assert shown.splitlines() == [
        "added file \\x1b]0;x\\x07 (mode 644)",
        "--- /dev/null",
        "+++ b/\\x1b]0;x\\x07",
        "@@ -0,0 +1 @@",
        "+\\x1b[2Jevil\\x0d\\u202egnp\\x9b",
    ]


def test_a_tree_that_moved_is_said(lower, change_tree, tmp_path):
    layer, _ = change_tree(lower, [["write", ["file"], "x", 0o644]], strategy="copy")
    manifest = export_changes(layer, tmp_path / "changes")
    (lower / "file").write_bytes(b"moved")

    assert "the tree is no longer what the run saw here" in render_diff(manifest, lower)


def test_long_texts_with_little_in_common_are_shown_at_once(diff_of, lower):
    (lower / "file").write_text("".join(f"{number % 97}\n" for number in range(20000)))

    started = time.process_time()
    shown = diff_of(["write", ["file"], "".join(f"{number % 89} \n" for number in range(20000)), 0o644])

    assert shown.count("\n-") == shown.count("\n+") == 20001
    assert time.process_time() - started < 20


LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "\\\n", "- x\n"]), max_size=30).map("".join)


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=LINES, after=st.tuples(LINES, st.sampled_from(["", "end"])).map("".join))
def test_a_shown_diff_is_what_patch_understands(tmp_path, before, after):
    if before == after:
        return
    (tmp_path / "file").write_text(before)
    hunks = _hunks(_split(before.encode()), _split(after.encode()))

    text = "--- a/file\n+++ b/file\n" + "".join(f"{line}\n" for line in hunks)
    subprocess.run(
        ["patch", "-s", "-p1"], input=text, text=True, cwd=tmp_path, check=True, capture_output=True
    )

    assert ((tmp_path / "file").read_text() if (tmp_path / "file").exists() else "") == after

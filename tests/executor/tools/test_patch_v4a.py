"""V4A patches: read strictly, placed where they fit and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.reasons import Reason
from executor.tools.patch_v4a import AddFile, DeleteFile, UpdateFile, apply_hunks, parse_patch

BODY = "def one():\n    return 1\n\ndef two():\n    return 1\n"


def patched(text, *lines):
    [operation] = parse_patch("\n".join(["*** Begin Patch", "*** Update File: f", *lines, "*** End Patch"]))
    return apply_hunks("f", text, operation.hunks)


def test_a_patch_of_all_kinds_is_read():
    operations = parse_patch(
        "*** Begin Patch\n"
        "*** Add File: new.py\n+a\n+\n+b\n"
        "*** Delete File: old.py\n"
        "*** Update File: x.py\n*** Move to: y.py\n@@ def f():\n-a\n+b\n c\n*** End of File\n"
        "*** End Patch\n"
    )

    added, deleted, updated = operations
    assert added == AddFile(path="new.py", content="a\n\nb\n")
    assert deleted == DeleteFile(path="old.py")
    assert isinstance(updated, UpdateFile)
    assert updated.move_to == "y.py"
    [hunk] = updated.hunks
    assert (hunk.anchors, hunk.old, hunk.new, hunk.at_end) == (("def f():",), ("a", "c"), ("b", "c"), True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*** Begin Patch\n*** End Patch",
        "*** Begin Patch\n*** Add File: a\n+x",
        "*** Add File: a\n+x\n*** End Patch",
        "*** Begin Patch\n*** Add File: \n+x\n*** End Patch",
        "*** Begin Patch\n*** Add File: a\nx\n*** End Patch",
        "*** Begin Patch\n*** Update File: a\n*** End Patch",
        "*** Begin Patch\n*** Update File: a\n@@\n*** End Patch",
        "*** Begin Patch\n*** Update File: a\n@@\nx\n*** End Patch",
        "*** Begin Patch\n*** Rename File: a\n*** End Patch",
        "*** Begin Patch\n*** Delete File: a\n*** End Patch\nrm -rf /",
    ],
)
def test_a_text_that_is_no_patch_is_refused_whole(text):
    understood = parse_patch(text)

    assert isinstance(understood, Reason)
    assert understood.code == "patch.invalid"


@given(st.text(alphabet="*@+- BeginPatchEndAddUpdateFile:\nab", max_size=200))
def test_reading_never_breaks(text):
    assert isinstance(parse_patch(text), (tuple, Reason))


def test_a_hunk_is_placed_after_its_context_line():
    assert patched(BODY, "@@ def two():", "-    return 1", "+    return 2") == BODY[:-2] + "2\n"


def test_context_lines_nest():
    text = "class A:\n  def f():\n    x\nclass B:\n  def f():\n    x\n"

    changed = patched(text, "@@ class B:", "@@ def f():", "-    x", "+    y")

    assert changed == text[:-6] + "    y\n"


def test_the_line_that_a_context_names_may_be_the_hunks_first():
    assert (
        patched(BODY, "@@ def two():", " def two():", "-    return 1", "+    return 2") == BODY[:-2] + "2\n"
    )


def test_a_hunk_that_fits_twice_is_refused():
    refused = patched(BODY, "@@", "-    return 1", "+    return 2")

    assert isinstance(refused, Reason)
    assert refused.code == "patch.ambiguous"


def test_a_hunk_that_fits_nowhere_is_refused():
    refused = patched(BODY, "-    return 3", "+    return 2")

    assert isinstance(refused, Reason)
    assert refused.code == "patch.no_match"


def test_hunks_follow_each_other():
    changed = patched("a\nb\nc\nd\n", "@@", "-a", "+A", " b", "@@", " c", "-d", "+D")

    assert changed == "A\nb\nc\nD\n"


def test_a_hunk_of_new_lines_alone_goes_behind_its_context_or_to_the_end():
    assert patched("a\nb\n", "@@ a", "+x") == "a\nx\nb\n"
    assert patched("a\nb\n", "+x") == "a\nb\nx\n"


def test_blanks_at_the_end_of_a_line_do_not_hinder():
    assert patched("a  \nb\n", "-a", "+x") == "x\nb\n"


def test_an_end_of_file_mark_picks_the_last_place():
    assert patched("a\nb\na\n", "-a", "+x", "*** End of File") == "a\nb\nx\n"


@pytest.mark.parametrize("text", ["a\r\nb\r\n", "a\nb", "a\r\nb"])
def test_line_endings_and_a_missing_last_newline_are_kept(text):
    assert patched(text, "-a", "+x") == text.replace("a", "x")

"""What a run leaves, read from its layer, exported, loaded and applied, is what the run's tree was."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sandboxes.workspace import apply_changes, changed_paths, export_changes, load_manifest, read_changes

# Few paths, so that operations meet; latin-1 text: a leading dash, a newline, invalid UTF-8, an escape.
PATHS = st.sampled_from(
    [
        ["a"],
        ["a", "a"],
        ["a", "-rf"],
        ["a", "-rf", "\xff\xfe"],
        ["a", "\xc3\xa9"],
        ["n\nl"],
        ["b"],
        ["b", "a"],
        ["-rf"],
        ["-rf", "\xff\xfe"],
        ["\x1b[2J"],
        ["\x1b[2J", "b"],
    ]
)
# An ordinary user cannot enter a directory of mode 0644, and has none in a tree of its own.
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o700] if os.geteuid() == 0 else [0o755, 0o700])
CONTENT = st.sampled_from(["", "one\n", "two\n", "\x00\xff" * 10, "x" * 5000])
OPERATION = st.one_of(
    st.tuples(st.just("write"), PATHS, CONTENT, MODES),
    st.tuples(st.just("mkdir"), PATHS, MODES),
    st.tuples(st.just("symlink"), PATHS, st.sampled_from(["a", "../b", "/etc/passwd", "\xff", "-rf"])),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("remake"), PATHS),
    st.tuples(st.just("chmod"), PATHS, MODES),
    st.tuples(st.just("touch"), PATHS),
    st.tuples(st.just("mkfifo"), PATHS),
)
START = [
    ("mkdir", ["a"], 0o755),
    ("write", ["a", "a"], "one\n", 0o644),
    ("mkdir", ["a", "-rf"], 0o700),
    ("write", ["a", "-rf", "\xff\xfe"], "two\n", 0o600),
    ("write", ["n\nl"], "", 0o755),
    ("symlink", ["b"], "a"),
    ("mkdir", ["\x1b[2J"], 0o755),
]
SETUP = st.lists(OPERATION.filter(lambda operation: operation[0] != "mkfifo"), max_size=6).map(START.__add__)
RUN = st.lists(OPERATION, max_size=12)

# No shrinking: each example mounts an overlay in a process of its own.
EXAMPLES = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def carried_over(original, merged):
    """What applying must give: the merged tree, with the original entry where a FIFO came to lie."""
    expected = {path: state for path, state in merged.items() if state[0] != "other"}
    for path, state in merged.items():
        if state[0] == "other" and path in original:
            expected[path] = original[path]
    return expected


@settings(EXAMPLES, max_examples=40)
@given(setup=SETUP, run=RUN)
def test_applied_changes_give_the_tree_that_the_run_left(tree_ops, change_tree, strategy, setup, run):
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        lower, target = base / "lower", base / "target"
        lower.mkdir()
        tree_ops.play(lower, setup)
        shutil.copytree(lower, target, symlinks=True)
        original = tree_ops.snapshot(lower)

        layer, merged = change_tree(lower, run, strategy=strategy)
        exported = export_changes(layer, base / "changes")
        loaded = load_manifest(base / "changes")
        first = apply_changes(loaded, target)
        second = apply_changes(loaded, target)

        assert loaded == exported
        assert tree_ops.snapshot(lower) == original
        assert first.outcome == "applied"
        assert tree_ops.snapshot(target) == carried_over(original, merged)
        assert second.outcome in {"already_applied", "applied"}
        assert second.written == ()
        assert changed_paths(layer) == {change.path for change in read_changes(layer)}


@settings(EXAMPLES, max_examples=25)
@given(setup=SETUP, run=RUN)
def test_both_strategies_see_the_same_changes(tree_ops, change_tree, overlay_works, setup, run):
    if not overlay_works:
        pytest.skip("no overlay can be mounted here")
    with tempfile.TemporaryDirectory() as name:
        lower = Path(name) / "lower"
        lower.mkdir()
        tree_ops.play(lower, setup)

        overlay, _ = change_tree(lower, run, strategy="overlay")
        copy, _ = change_tree(lower, run, strategy="copy")

        assert read_changes(overlay) == read_changes(copy)

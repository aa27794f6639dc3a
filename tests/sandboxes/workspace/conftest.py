"""Layers for the tests of this folder: a real overlay's upper directory, or a changed copy."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sandboxes.base import Layer

SCRIPT = Path(__file__).with_name("tree_ops.py")


@pytest.fixture(scope="session")
def tree_ops():
    spec = importlib.util.spec_from_file_location("tree_ops", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def overlay_works(tmp_path_factory):
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as name:
        base = Path(name)
        (base / "lower").mkdir()
        return run_in_overlay(base / "lower", base, [["mkdir", ["x"], 0o755]]).returncode == 0


@pytest.fixture(params=["overlay", "copy"])
def strategy(request, overlay_works):
    if request.param == "overlay" and not overlay_works:
        pytest.skip("no overlay can be mounted here")
    return request.param


@pytest.fixture
def change_tree(tree_ops, tmp_path_factory):
    """Play operations over a tree; gives the layer and a snapshot of what it looked like inside."""
    with contextlib.ExitStack() as opened:

        def change(lower: Path, operations, *, strategy):
            store = Path(tempfile.mkdtemp(dir=tmp_path_factory.getbasetemp()))
            opened.callback(remove_tree, store)
            if strategy == "copy":
                top = store / "copy"
                shutil.copytree(lower, top, symlinks=True)
                tree_ops.play(top, operations)
                merged = tree_ops.snapshot(top)
            else:
                done = run_in_overlay(lower, store, operations)
                assert done.returncode == 0, done.stderr
                top, merged = store / "upper", json.loads(done.stdout)
            fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, fd)
            return Layer(upper_fd=fd, lower=lower, strategy=strategy), merged

        yield change


def run_in_overlay(lower, store, operations):
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), str(lower), str(store)],
        input=json.dumps(operations),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def remove_tree(root):
    subprocess.run(["chmod", "-R", "u+rwx", str(root)], check=False, capture_output=True)
    shutil.rmtree(root)

"""Removals happen in the background, are waited for, and are not lost when they fail."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

pytest.importorskip("docker")

from sandboxes.bubblewrap import mounts
from sandboxes.docker import place
from sandboxes.docker.removal import Remover
from sandboxes.errors import EngineLost


def test_whoever_settles_waits_for_what_is_under_way():
    remover, gate, done = Remover(), threading.Event(), []

    remover.submit(lambda: gate.wait(10) and done.append("removed"))
    early = remover.settle(seconds=0.01)
    gate.set()

    assert not early
    assert remover.settle(seconds=10)
    assert done == ["removed"]


def test_a_removal_that_failed_is_tried_again_with_the_next_one_that_succeeds():
    remover, tries = Remover(), []

    def remove():
        tries.append("try")
        if len(tries) == 1:
            raise EngineLost("it is gone")

    remover.submit(remove)
    assert remover.settle(seconds=10)
    kept = remover.failed
    remover.submit(lambda: None)
    while remover.failed:
        pass
    remover.settle(seconds=10)

    assert (kept, remover.failed, tries) == (1, 0, ["try", "try"])


def test_the_end_of_the_process_tries_what_failed_once_more():
    remover, tries = Remover(), []

    def remove():
        tries.append("try")
        raise EngineLost("it is gone")

    remover.submit(remove)
    remover.settle(seconds=10)
    remover.finish()

    assert (tries, remover.failed) == (["try", "try"], 1)


def test_a_half_removed_directory_still_says_whose_it_is(tmp_path, monkeypatch):
    for part in ("channel", "etc", "empty", "store"):
        (tmp_path / part).mkdir()
    (tmp_path / place.OWNER_FILE).write_text("somebody")
    there = []
    real = place.shutil.rmtree

    def noting(path, **how):
        there.append((tmp_path / place.OWNER_FILE).exists())
        real(path, **how)

    monkeypatch.setattr(place.shutil, "rmtree", noting)
    place.remove_place(tmp_path)

    # The last one is that of the directory itself.
    assert there == [True] * 5
    assert not tmp_path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_tree_of_the_same_file_system_is_detached_before_its_place_is_removed(tmp_path):
    tree, folder = tmp_path / "tree", tmp_path / "place"
    (folder / "lower").mkdir(parents=True)
    tree.mkdir()
    (tree / "a.txt").write_text("alpha")
    clone = mounts.clone_tree(str(tree))
    mounts.attach_tree(clone, str(folder / "lower"))
    os.close(clone)

    try:
        place.remove_place(folder)
    finally:
        with contextlib.suppress(OSError):
            mounts.detach(str(folder / "lower"))

    assert not folder.exists()
    assert (tree / "a.txt").read_text() == "alpha"

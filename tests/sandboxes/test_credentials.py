"""A child that a root broker starts as another user has nothing of root, and the broker is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandboxes.bubblewrap.credentials import thread_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

UID = 64200
ROWS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapAmb")


def on_a_thread_of_its_own(job):
    found = []
    thread = threading.Thread(target=lambda: found.append(job()))
    thread.start()
    thread.join()
    return found[0]


def rows(text):
    table = dict(line.split(":", 1) for line in text.splitlines())
    return {name: table[name].split() for name in ROWS}


def started_as_another():
    with thread_user(UID):
        answer = subprocess.run(["cat", "/proc/self/status"], capture_output=True, check=True, text=True)
    return rows(answer.stdout), rows(Path("/proc/thread-self/status").read_text())


def test_a_child_keeps_neither_uid_nor_group_nor_capability_of_root():
    child, _ = on_a_thread_of_its_own(started_as_another)

    assert child["Uid"] == child["Gid"] == [str(UID)] * 4
    assert child["Groups"] == []
    assert {int(child[name][0], 16) for name in ROWS if name.startswith("Cap")} == {0}


def test_the_thread_is_root_again_with_all_that_it_had():
    before = on_a_thread_of_its_own(lambda: rows(Path("/proc/thread-self/status").read_text()))

    _, after = on_a_thread_of_its_own(started_as_another)

    assert after == before


def test_the_thread_is_root_again_when_the_program_cannot_be_started():
    def fail():
        with pytest.raises(OSError, match="no-such"), thread_user(UID):
            subprocess.run(["/no-such-program"], check=True)
        return os.getresuid()

    assert on_a_thread_of_its_own(fail) == os.getresuid()


def test_other_threads_never_are_anybody_else():
    seen, entered, leave = [], threading.Event(), threading.Event()

    def be_another():
        with thread_user(UID):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=be_another)
    thread.start()
    entered.wait(10)
    seen.append((os.getresuid(), os.getresgid()))
    leave.set()
    thread.join()

    assert seen == [((0, 0, 0), (0, 0, 0))]


def test_a_broker_that_may_not_be_another_is_told_so_and_lives():
    script = (
        "from sandboxes.bubblewrap.credentials import thread_user\n"
        "from sandboxes.errors import SandboxUnavailable\n"
        "try:\n"
        "    with thread_user(64200): pass\n"
        "except SandboxUnavailable as error: print(error.hint)\n"
    )

    answer = subprocess.run(
        ["setpriv", "--bounding-set=-setgid", sys.executable, "-c", script],
        capture_output=True,
        check=False,
        text=True,
    )

    assert (answer.returncode, answer.stdout) == (0, "run as an ordinary user\n")

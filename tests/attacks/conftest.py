from __future__ import annotations

import textwrap

import pytest

from sandboxes.base import ExecRequest, ResourceLimits, SandboxSpec
from sandboxes.open import open_bubblewrap

PRELUDE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def syscall(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return -ctypes.get_errno() if result < 0 else result
"""


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha\n")
    return folder


@pytest.fixture
def opened(tree):
    def open_it(*, limits=None, **changes):
        spec = SandboxSpec(kind="bubblewrap", workspace=tree, limits=limits or ResourceLimits(), **changes)
        return open_bubblewrap(spec)

    return open_it


@pytest.fixture
def attack():
    """Return a function that makes the request for a Python program of the attacker."""

    def request(body, **changes):
        program = PRELUDE + textwrap.dedent(body)
        return ExecRequest(argv=("python3", "-c", program), **{"timeout_seconds": 20, **changes})

    return request

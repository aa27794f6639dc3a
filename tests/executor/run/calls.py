"""What tests of a sandbox for each call have in common."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

from sandboxes.errors import SandboxDied, SandboxStartFailed
from sandboxes.open import open_sandbox

REFUSING = {"write": ["src/**"], "growth": "refuse"}


def shell(run, command, **more):
    return run.call("terminal", {"command": command, **more})


def fates(place):
    return [record["body"]["details"].get("changes") for record in place.records("call.ended")]


def everything(tree):
    """All that a tree holds, as far as changes can tell it."""
    found = {}
    for path in sorted(tree.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[os.fsencode(path.relative_to(tree))] = (path.lstat().st_mode, content)
    return found


class Failing:
    """Opens real sandboxes, of which a chosen one does not start or dies at its first command."""

    def __init__(self, *, start=(), die=()):
        self.start, self.die, self.opened = set(start), set(die), 0

    @asynccontextmanager
    async def __call__(self, spec):
        self.opened += 1
        number = self.opened
        if number in self.start:
            raise SandboxStartFailed("told not to start")
        async with open_sandbox(spec) as sandbox:
            if number in self.die:
                sandbox.exec = self._die
            yield sandbox

    async def _die(self, request):
        raise SandboxDied("told to die")

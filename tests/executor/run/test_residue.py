"""Attacks: a command leaves something behind for the next call. Judged from outside of the sandbox."""

from __future__ import annotations

import os
import uuid
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from sandboxes.open import open_sandbox

pytestmark = pytest.mark.anyio

CANARY = f"remit-residue-{uuid.uuid4().hex}"
LEAVE = f"""
import ctypes, os, signal, socket, subprocess, sys, time
for place in ("/tmp", "/tmp/home", "/dev/shm", "/var/tmp", "/run", "/dev/mqueue", "/.remit"):
    try:
        open(f"{{place}}/{CANARY}", "w").write("x")
    except OSError:
        pass
libc = ctypes.CDLL(None)
libc.shmget(0x5EC4E7, 4096, 0o1666)
libc.semget(0x5EC4E7, 1, 0o1666)
libc.msgget(0x5EC4E7, 0o1666)
socket.socket(socket.AF_UNIX).bind("\\0{CANARY}")
listener = socket.socket()
listener.bind(("127.0.0.1", 45454))
listener.listen()
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    if os.fork() == 0:
        os.execv("/bin/sleep", ["{CANARY}", "600"])
    os._exit(0)
open("kept", "w").write("x")
time.sleep(1)
"""
FIND = f"""
import ctypes, os, socket
for place in ("/tmp", "/tmp/home", "/dev/shm", "/var/tmp", "/run", "/dev/mqueue", "/.remit"):
    if os.path.exists(f"{{place}}/{CANARY}"):
        print("FOUND", place)
libc = ctypes.CDLL(None)
for name, found in (
    ("shm", libc.shmget(0x5EC4E7, 0, 0)),
    ("sem", libc.semget(0x5EC4E7, 0, 0)),
    ("msg", libc.msgget(0x5EC4E7, 0)),
):
    if found >= 0:
        print("FOUND", name)
for kind, address in ((socket.AF_UNIX, "\\0{CANARY}"), (socket.AF_INET, ("127.0.0.1", 45454))):
    try:
        socket.socket(kind).connect(address)
        print("FOUND", address)
    except OSError:
        pass
for pid in filter(str.isdigit, os.listdir("/proc")):
    if b"{CANARY}" in open(f"/proc/{{pid}}/cmdline", "rb").read() and int(pid) != os.getpid():
        print("FOUND", pid)
print(sorted(os.listdir(".")))
"""


class Watching:
    """Opens real sandboxes and remembers the guest of each, by its pid on the host."""

    def __init__(self):
        self.guests = []

    @asynccontextmanager
    async def __call__(self, spec):
        async with open_sandbox(spec) as sandbox:
            self.guests.append(sandbox.guest_pid)
            yield sandbox

    def alive(self):
        """Guests that can still do something: a dead one that nobody has waited for has no command line."""
        return [pid for pid in self.guests if command_line(pid)]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def running(text):
    """Pids of the host whose command line holds a text."""
    return [
        int(pid) for pid in filter(str.isdigit, os.listdir("/proc")) if text.encode() in command_line(pid)
    ]


@pytest.fixture
def python(place):
    """Return how a program is run as a command."""
    for name, program in (("leave.py", LEAVE), ("find.py", FIND)):
        place.put(name, program)
    return lambda run, name: run.call("terminal", {"command": f"python3 {name}"})


@pytest.mark.parametrize("growth", ["record", "refuse"])
async def test_nothing_that_a_command_leaves_outside_of_the_workspace_reaches_the_next(
    place, remit, python, growth
):
    watching = Watching()
    contract = remit(
        sandbox={"lifetime": "call"},
        scope={"write": ["kept"] if growth == "record" else ["other"], "growth": growth},
    )

    async with place.run(contract, sandbox_factory=watching) as run:
        seen = []

        async def look():
            while not seen:
                seen.extend(running(CANARY))
                await anyio.sleep(0.01)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(look)
                left = await python(run, "leave.py")
        alive, guests = running(CANARY), watching.alive()
        found = await python(run, "find.py")

    assert left.exit_code == 0, left
    assert seen
    assert alive == []
    assert watching.guests[1] not in guests
    kept = ["find.py", "kept", "leave.py"] if growth == "record" else ["find.py", "leave.py"]
    assert found.output == f"{kept}\n"


async def test_a_calls_guest_is_dead_when_the_call_is_answered(place, remit, python):
    watching = Watching()

    async with place.run(remit(sandbox={"lifetime": "call"}), sandbox_factory=watching) as run:
        for _ in range(3):
            # A call without changes: the next sandbox is opened when this one is gone.
            await python(run, "find.py")
            assert watching.alive() == []

    assert len(watching.guests) == 4


async def test_a_sandbox_that_waits_for_the_next_call_is_not_one_that_was_used(place, remit):
    watching = Watching()

    async with place.run(remit(sandbox={"lifetime": "call"}), sandbox_factory=watching) as run:
        await run.call("terminal", {"command": "echo x > a"})
        alive = watching.alive()
        used = place.records("call.ended")[0]["body"]["details"]["sandbox"]
        await run.call("terminal", {"command": "cat a"})

    assert alive == watching.guests[2:]
    opened = place.records("sandbox.opened")
    assert [record["body"]["id"] for record in opened].count(used) == 1
    assert watching.alive() == []

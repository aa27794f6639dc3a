"""Every limit has a command that reaches it; then nothing of it is alive and the next call works."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandboxes.base import ExecRequest, ResourceLimits

pytestmark = pytest.mark.anyio

FILL_SOCKETS = """python3 -c '
import socket, time
held = []
for _ in range(480):
    held.append(socket.socketpair())
    for end in held[-1]:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        try:
            while end.send(bytes(32768)):
                pass
        except BlockingIOError:
            continue
time.sleep(60)
'"""
FILL_PAGE_TABLES = """python3 -c '
import mmap, time
size = 96 << 30
held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
held.madvise(mmap.MADV_NOHUGEPAGE)
for place in range(0, size, 2 << 20):
    held[place]
time.sleep(60)
'"""

MIB = 1024 * 1024
TIGHT = ResourceLimits(
    memory_bytes=128 * MIB,
    pids=24,
    disk_bytes=8 * MIB,
    inodes=200,
    tmp_bytes=4 * MIB,
    file_bytes=4 * MIB,
    output_limit_bytes=4 * MIB,
    cpu_seconds=60,
)


async def assert_only_the_guest_lives(sandbox):
    seen = await sandbox.exec(ExecRequest(argv=("sh", "-c", "echo /proc/[0-9]*")))
    assert seen.exit_code == 0
    assert len(seen.output.split()) <= 3


@pytest.mark.parametrize(
    ("limit", "script", "changes"),
    [
        ("wall", "sleep 60", {}),
        ("wall", "exec >&- 2>&-; sleep 60", {}),
        ("wall", "setsid sleep 60 & setsid sleep 60 & wait", {}),
        ("wall", "trap '' HUP TERM INT; while :; do sleep 1; done", {}),
        ("output", "cat /dev/zero", {}),
        ("output", "yes", {}),
        ("pids", "python3 -c 'import os\nwhile 1:\n try: os.fork()\n except OSError: pass'", {}),
        ("pids", "i=0; while [ $i -lt 200 ]; do sleep 60 & i=$((i+1)); done; wait", {}),
        ("memory", "python3 -c 'x=[]\nwhile 1: x.append(bytearray(1<<20))'", {}),
        ("memory", "python3 -c 'import time; x=b\"x\"*(200<<20); time.sleep(60)'", {}),
        (
            "memory",
            "for i in 1 2 3 4 5; do python3 -c 'import time; x=b\"x\"*(40<<20); time.sleep(60)' & done; wait",
            {},
        ),
        (
            "memory",
            "python3 -c 'import mmap,time; m=mmap.mmap(-1,200<<20); m.write(b\"x\"*len(m)); time.sleep(60)'",
            {},
        ),
        ("memory", FILL_SOCKETS, {}),
        ("memory", FILL_PAGE_TABLES, {}),
        ("disk", "cat /dev/zero | split -b 1M -", {}),
        ("disk", "cat /dev/zero > /tmp/full", {"file_bytes": 64 * MIB}),
        ("disk", "head -c 64M /dev/zero > /dev/shm/full", {"file_bytes": 64 * MIB}),
        ("inodes", "i=0; while : > f$i; do i=$((i+1)); done; exit 1", {}),
        ("size", "cat /dev/zero > one", {"disk_bytes": 64 * MIB}),
        ("cpu", "while :; do :; done", {"cpu_seconds": 1}),
        ("cpu", "(while :; do :; done) & (while :; do :; done) & wait", {"cpu_seconds": 1}),
    ],
)
async def test_a_command_that_reaches_a_limit_ends_with_that_limit(opened, sh, limit, script, changes):
    timeout = 1 if limit == "wall" else 30

    async with opened(limits=replace(TIGHT, **changes)) as sandbox:
        result = await sandbox.exec(sh(script, timeout_seconds=timeout))
        await assert_only_the_guest_lives(sandbox)
        after = await sandbox.exec(sh("echo next"))

    assert result.limit == limit
    assert (result.exit_code, result.signal) == (None, None)
    assert (after.exit_code, after.output) == (0, b"next\n")


async def test_a_command_that_ends_before_its_daemons_ends_the_call(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec(
            sh("setsid sh -c 'while sleep 0.1; do date >> ticks; done' & echo started")
        )
        await assert_only_the_guest_lives(sandbox)

    assert (result.exit_code, result.output) == (0, b"started\n")
    assert result.wall_seconds < 5


async def test_what_the_limits_leave_free_can_be_used(opened, sh):
    async with opened(limits=TIGHT) as sandbox:
        result = await sandbox.exec(
            sh("head -c 3M /dev/zero > f && head -c 3M /dev/zero > /tmp/f && python3 -c 'x=b\"x\"*(60<<20)'")
        )

    assert result.exit_code == 0


async def test_disk_is_free_again_after_the_files_are_removed(opened, sh):
    async with opened(limits=TIGHT) as sandbox:
        full = await sandbox.exec(sh("cat /dev/zero | split -b 1M -"))
        freed = await sandbox.exec(sh("rm -f x*; head -c 2M /dev/zero > again"))

    assert full.limit == "disk"
    assert freed.exit_code == 0


async def test_open_files_are_limited(opened, sh):
    async with opened(limits=replace(TIGHT, open_files=32)) as sandbox:
        result = await sandbox.exec(sh("python3 -c 'x=[open(\"/dev/null\") for _ in range(64)]'"))

    assert b"Too many open files" in result.output


async def test_the_cpu_time_of_earlier_commands_is_not_charged_to_a_later_one(opened, sh):
    work = sh("i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done")

    async with opened(limits=ResourceLimits(cpu_seconds=2)) as sandbox:
        ended = [await sandbox.exec(work) for _ in range(8)]

    assert sum(result.cpu_seconds for result in ended) > 2
    assert {(result.exit_code, result.limit) for result in ended} == {(0, None)}

"""Checks that every limit holds, says its name, and leaves a sandbox that works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio

from sandboxes.base import ExecRequest, ResourceLimits
from sandboxes.conformance.suite import MIB, Check, OpenSandbox, checks, expect, expect_true, shell, spec

_TIGHT = ResourceLimits(
    memory_bytes=96 * MIB,
    pids=24,
    disk_bytes=8 * MIB,
    inodes=200,
    tmp_bytes=4 * MIB,
    file_bytes=64 * MIB,
    output_limit_bytes=4 * MIB,
)
_SOON_SECONDS = 30.0


def _check_of(name: str, limit: str, request: ExecRequest, **changes: int) -> Check:
    """Make the check that a command ends by a limit and the next one works."""

    async def run(open_sandbox: OpenSandbox, workspace: Path) -> None:
        async with open_sandbox(spec(workspace, limits=replace(_TIGHT, **changes))) as sandbox:
            with anyio.fail_after(_SOON_SECONDS + request.timeout_seconds):
                result = await sandbox.exec(request)
            expect((result.limit, result.exit_code, result.signal), (limit, None, None), name)
            after = await sandbox.exec(shell("echo next; set -- /proc/[0-9]*; echo $#"))
            expect((after.exit_code, after.output[:5]), (0, b"next\n"), f"the call after {name}")

    return Check(name=f"limit_{name}", needs="commands", run=run)


async def check_limits_leave_room_for_work(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """What the limits leave free can be used to the most part."""
    script = "head -c 3000000 /dev/zero > f && head -c 3000000 /dev/zero > /tmp/f && ls -l f | cut -d' ' -f1"
    async with open_sandbox(spec(workspace, limits=_TIGHT)) as sandbox:
        result = await sandbox.exec(shell(script))
        expect((result.limit, result.exit_code), (None, 0), "work within the limits")


async def check_limits_are_of_one_sandbox(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A sandbox at its limit takes nothing from another one."""
    async with (
        open_sandbox(spec(workspace, limits=_TIGHT)) as one,
        open_sandbox(spec(workspace, limits=_TIGHT)) as two,
    ):
        full = await one.exec(shell("cat /dev/zero | split -b 1000000 -"))
        expect(full.limit, "disk", "a full disk")
        other = await two.exec(shell("ls; head -c 3000000 /dev/zero > f"))
        expect((other.exit_code, b"xaa" in other.output), (0, False), "another sandbox over the same tree")


async def check_open_files_are_limited(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A command meets its limit of descriptors and may not raise it."""
    async with open_sandbox(spec(workspace, limits=replace(_TIGHT, open_files=64))) as sandbox:
        result = await sandbox.exec(shell("ulimit -n; ulimit -Hn; ulimit -n 4096; ulimit -c"))
        expect_true(result.output.startswith(b"64\n64\n"), f"limits of open files: {result.output!r}")
        expect(result.output.split()[-1], b"0", "core dumps")


def _endless(script: str) -> ExecRequest:
    return shell(script, timeout_seconds=_SOON_SECONDS)


_LIMITS: tuple[Callable[[], Check], ...] = (
    lambda: _check_of("wall", "wall", shell("sleep 60", timeout_seconds=0.5)),
    lambda: _check_of("wall_output_closed", "wall", shell("exec >&- 2>&-; sleep 60", timeout_seconds=0.5)),
    lambda: _check_of(
        "wall_signals_ignored",
        "wall",
        shell("trap '' TERM INT HUP; while :; do sleep 1; done", timeout_seconds=0.5),
    ),
    lambda: _check_of("output", "output", _endless("cat /dev/zero")),
    # Children that stay: a bomb whose shells give up at the first refused fork can burn out unseen.
    lambda: _check_of("pids", "pids", _endless("while :; do sleep 60 & done")),
    lambda: _check_of("memory", "memory", _endless("tail /dev/zero")),
    lambda: _check_of(
        "memory_of_many",
        "memory",
        # Each holds what it read until its input ends, which it does not.
        _endless("for i in 1 2 3 4 5 6; do (head -c 30000000 /dev/zero; sleep 60) | tail & done; wait"),
    ),
    lambda: _check_of("disk", "disk", _endless("cat /dev/zero > big")),
    lambda: _check_of("disk_of_tmp", "disk", _endless("cat /dev/zero > /tmp/big")),
    lambda: _check_of("inodes", "inodes", _endless("i=0; while : > f$i; do i=$((i+1)); done; exit 1")),
    lambda: _check_of("size", "size", _endless("cat /dev/zero > big"), file_bytes=2 * MIB),
    lambda: _check_of("cpu", "cpu", _endless("while :; do :; done"), cpu_seconds=1),
)

LIMIT_CHECKS = (
    *(make() for make in _LIMITS),
    *checks(
        "commands",
        check_limits_leave_room_for_work,
        check_limits_are_of_one_sandbox,
        check_open_files_are_limited,
    ),
)

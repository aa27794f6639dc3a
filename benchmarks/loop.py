"""Figures of one call and one run, through the whole broker on the real sandbox."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio

from benchmarks.floor import (
    BareBwrap,
    Files,
    PeakMemory,
    Victim,
    flood,
    fork_exec,
    fork_exec_rate,
    fork_exec_shell,
)
from benchmarks.measure import Figure, against, interleave, single
from benchmarks.trees import MANY, Lifetime, Runtime, make_tree, remit_over
from executor.run import Run, open_run
from executor.store import RunStore
from sandboxes.base import SandboxSpec
from sandboxes.pool import WarmPool

KIB = 1024
MIB = 1024 * 1024
LARGE_TEXT = ("b" * 1023 + "\n") * KIB
READ_LINES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a benchmark works, and how much of it is done."""

    directory: Path
    quick: bool
    bwrap: Path

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 7

    @property
    def store(self) -> RunStore:
        return RunStore(self.directory / "state")

    def tree(self, files: int) -> Path:
        """Return a workspace of that many files, made when it is first asked for."""
        path = self.directory / f"tree-{files}"
        return path if path.exists() else make_tree(path, files=files)

    @asynccontextmanager
    async def run(
        self,
        *,
        files: int = 10,
        terminal: int = MANY,
        output_limit: int = 128 * MIB,
        lifetime: Lifetime = "task",
        durability: Literal["process", "disk"] = "process",
        runtime: Runtime | None = None,
    ) -> AsyncIterator[Run]:
        """Open a run over a tree of that size."""
        tree = self.tree(files)
        remit = remit_over(
            tree, terminal=terminal, output_limit=output_limit, lifetime=lifetime, runtime=runtime
        )
        async with open_run(remit, base=self.directory, store=self.store, durability=durability) as run:
            yield run


def call(run: Run, tool: str, *, expected: str = "ok", **arguments: object) -> Callable[[], Awaitable[None]]:
    """Make a step out of one call, which fails the benchmark when the answer is another one."""

    async def step() -> None:
        outcome = await run.call(tool, arguments)
        if outcome.status != expected:
            raise RuntimeError(f"{tool}: {outcome.status}, not {expected}: {outcome.to_json()}")

    return step


async def calls(place: Place) -> list[Figure]:
    """A command, small and large files, and a refusal."""
    small, large = Files(place.directory, size_bytes=KIB), Files(place.directory, size_bytes=MIB)
    async with place.run() as run, place.run(terminal=0) as strict:
        steps = {
            "fork+exec": fork_exec,
            "fork+exec bash": fork_exec_shell,
            "true": call(run, "terminal", command="true"),
            "write+rename": small.write,
            "write 1 KiB": call(run, "write_file", path="out/small", content="a" * KIB),
            "read as text": small.read,
            "read_file 1 KiB": call(run, "read_file", path="out/small"),
            "write+rename 1 MiB": large.write,
            "write 1 MiB": call(run, "write_file", path="out/large", content=LARGE_TEXT),
            "read 1 MiB as text": large.read,
            "read_file 1 MiB": call(run, "read_file", path="out/large", limit=READ_LINES),
            "denied": call(strict, "terminal", expected="denied", command="true"),
        }
        taken = await interleave(steps, rounds=place.rounds, each=20 if place.quick else 50)
    shell = f"a bare `bash -c true` takes {taken['fork+exec bash'].p50 * 1e3:.2f} ms"
    return [
        against("terminal `true`, p50", taken["true"], taken["fork+exec"], target="<= 5 x", note=shell),
        against("write_file 1 KiB", taken["write 1 KiB"], taken["write+rename"], target="<= 4 x"),
        against("read_file 1 KiB", taken["read_file 1 KiB"], taken["read as text"], target="<= 8 x"),
        against("write_file 1 MiB", taken["write 1 MiB"], taken["write+rename 1 MiB"], target="<= 3 x"),
        against("read_file 1 MiB", taken["read_file 1 MiB"], taken["read 1 MiB as text"], target="<= 4 x"),
        Figure(name="denied and journalled", value=taken["denied"].p50 * 1e3, unit="ms", target="<= 0.03 ms"),
    ]


async def life(place: Place) -> list[Figure]:
    """A run's beginning and end: from nothing, again in the same process, and gone."""
    bare = BareBwrap(place.bwrap)
    lives, bwrap = [], []
    for _ in range(place.rounds + 1):
        started = time.perf_counter()
        await bare.call()
        bwrap.append(time.perf_counter() - started)
        lives.append(await _one_life(place))
    opens = [life.opened for life in lives]
    firsts, ends = [life.answered for life in lives], [life.closed for life in lives]
    floor = single("bwrap call", bwrap)
    cold, cold_floor = single("cold", opens[:1]), single("bwrap call", bwrap[:1])
    warm, warm_floor = single("warm", opens[1:]), single("bwrap call", bwrap[1:])
    return [
        against("open a run, first", cold, cold_floor, target="<= 25 ms"),
        against("open a run, later", warm, warm_floor, target="<= 2.5 x"),
        against("open and answer a first call", single("first", firsts), floor, target=""),
        against("leave a run, changes kept", single("leave", ends), floor, target=""),
        *await _leases(place),
        *await _fresh(place, bare),
    ]


async def _leases(place: Place) -> list[Figure]:
    """A sandbox that waits in a pool: leased, asked, closed."""
    spec = SandboxSpec(kind="bubblewrap", workspace=place.tree(10))
    leases, closes, kills = [], [], []
    async with WarmPool(spec) as pool:
        for _ in range(place.rounds * 3):
            await pool.filled()
            kills.append(Victim().kill())
            started = time.perf_counter()
            async with pool.lease(spec) as sandbox:
                await sandbox.read_file("d0000/f000", max_bytes=KIB)
                answered = time.perf_counter()
            leases.append(answered - started)
            closes.append(time.perf_counter() - answered)
    kill = single("kill+wait", kills)
    return [
        against("lease a waiting sandbox, first answer", single("lease", leases), kill, target="<= 1 ms"),
        against("close a sandbox", single("close", closes), kill, target="<= 1 ms"),
    ]


async def _fresh(place: Place, bare: BareBwrap) -> list[Figure]:
    """Calls that each get a sandbox of their own, one right after the other."""
    async with place.run(lifetime="call") as run:
        steps = {
            "bwrap call": bare.call,
            "true": call(run, "terminal", command="true"),
            "write": call(run, "terminal", command="date > out/now"),
        }
        taken = await interleave(steps, rounds=place.rounds, each=5)
    return [
        against("`true`, lifetime: call", taken["true"], taken["bwrap call"], target=""),
        against("a writing command, lifetime: call", taken["write"], taken["bwrap call"], target=""),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Life:
    """Seconds from the start to an open run and to its first answer, and those that leaving it took."""

    opened: float
    answered: float
    closed: float


async def _one_life(place: Place) -> _Life:
    started = time.perf_counter()
    async with place.run() as run:
        opened = time.perf_counter()
        await call(run, "terminal", command="true")()
        answered = time.perf_counter()
    return _Life(opened=opened - started, answered=answered - started, closed=time.perf_counter() - answered)


async def rate(place: Place) -> list[Figure]:
    """Commands a second from 16 and from 64 tasks, each with a run of its own."""
    figures = []
    count = 320 if place.quick else 3200
    for tasks in (16, 64):
        async with AsyncExitStack() as stack:
            runs = [await stack.enter_async_context(place.run()) for _ in range(tasks)]
            rates = []
            for _ in range(3):
                bare = await fork_exec_rate(tasks=tasks, count=count)
                rates.append((await rate_of(runs, count=count), bare))
        ours, bare = sorted(rates, key=lambda pair: pair[0] / pair[1])[1]
        figures.append(
            Figure(
                name=f"`true` from {tasks} tasks",
                value=ours,
                unit="calls/s",
                floor_name="fork+exec bash",
                floor=bare,
                ratio=ours / bare,
                target=">= 1.0 x" if tasks == 16 else "flat from 16",
            )
        )
    return figures


async def rate_of(runs: list[Run], *, count: int) -> float:
    async def some(run: Run) -> None:
        for _ in range(count // len(runs)):
            await call(run, "terminal", command="true")()

    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for run in runs:
            group.start_soon(some, run)
    return count / (time.perf_counter() - started)


async def idle(place: Place) -> list[Figure]:
    """Memory of 64 sandboxes that wait."""
    number = 8 if place.quick else 64
    async with AsyncExitStack() as stack:
        for _ in range(number):
            run = await stack.enter_async_context(place.run())
            await call(run, "terminal", command="true")()
        await anyio.sleep(0.5)
        held = [proportional_bytes(process) for process in descendants(os.getpid())]
    each = sum(held) / number / MIB
    note = f"{len(held) / number:.1f} processes each"
    return [
        Figure(
            name=f"{number} idle sandboxes, PSS each", value=each, unit="MiB", target="<= 5 MiB", note=note
        )
    ]


def descendants(process: int) -> list[int]:
    """Return the ids of all processes below one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # After the name, which may hold anything, come the state and the parent.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [process]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def proportional_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * KIB for line in lines if line.startswith("Pss:"))


async def output(place: Place) -> list[Figure]:
    """A command that prints much: how long, how much is held, and how soon one without end is stopped."""
    size = (10 if place.quick else 100) * MIB
    command = f"head -c {size} /dev/zero"
    taken: list[tuple[float, float, int]] = []
    async with place.run() as run:
        for _ in range(3):
            bare = await anyio.to_thread.run_sync(flood, command.split())
            with PeakMemory() as memory:
                started = time.perf_counter()
                await call(run, "terminal", command=command)()
                ours = time.perf_counter() - started
            taken.append((ours, bare.seconds, memory.gained_bytes))
        observed = last_observed(run.directory.journal_path)
    exact = observed["output_bytes"] == size and observed["output_sha256"] == bare.sha256
    note = "size and digest reported right" if exact else f"reported {observed}, not {size} {bare.sha256}"
    name = f"{size // MIB} MiB of output"
    ours_timing = single("ours", [ours for ours, _, _ in taken])
    floor = single("read and hash", [seconds for _, seconds, _ in taken])
    held = max(gained for _, _, gained in taken) / MIB
    return [
        against(name, ours_timing, floor, target="<= 1.2 x", note=note),
        Figure(name=f"{name}, gained by the broker", value=held, unit="MiB", target="<= 3 x the cap"),
        await _endless(place),
    ]


async def _endless(place: Place) -> Figure:
    """What a command without end takes beyond the time that its permitted output takes by itself."""
    limit = 16 * MIB
    beyond = []
    async with place.run(output_limit=limit) as run:
        for _ in range(3):
            bare = await anyio.to_thread.run_sync(flood, ["head", "-c", str(limit), "/dev/zero"])
            started = time.perf_counter()
            await call(run, "terminal", expected="limit", command="cat /dev/zero")()
            beyond.append(time.perf_counter() - started - bare.seconds)
    late = statistics.median(beyond) * 1e3
    return Figure(
        name="output without end, stopped after 16 MiB", value=late, unit="ms late", target="<= 50 ms"
    )


def last_observed(journal: Path) -> dict[str, Any]:
    """Return what the broker recorded of the last command."""
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    ended = [record["body"] for record in records if record["kind"] == "call.ended"]
    return dict(ended[-1]["details"])

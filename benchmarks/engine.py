"""Figures of containers of an engine, beside the engine's own commands and the bare operations.

The engine is the one that can be reached; where there is none, one is started as for the tests.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from benchmarks.floor import Files, PeakMemory, Victim, flood, fork_exec, fork_exec_rate
from benchmarks.loop import (
    KIB,
    LARGE_TEXT,
    MIB,
    READ_LINES,
    Place,
    call,
    descendants,
    last_observed,
    proportional_bytes,
    rate_of,
)
from benchmarks.measure import Figure, against, interleave, single
from benchmarks.trees import Runtime
from sandboxes.base import SandboxSpec
from sandboxes.docker.removal import settle
from sandboxes.docker.sandbox import DockerSandbox
from sandboxes.open import open_docker
from sandboxes.pool import WarmPool
from tests.engine import IMAGE, NoEngine, private_engine

Step = Callable[[], Awaitable[object]]
_TARGETS = {
    "true": {"runc": "<= 2 x", "runsc": "<= 12 x"},
    "write small": {"runc": "<= 5 x", "runsc": "<= 10 x"},
    "read small": {"runc": "<= 10 x", "runsc": "<= 10 x"},
    "large": {"runc": "<= 4 x", "runsc": "<= 12 x"},
    "cold": {"runc": "<= 0.4 x", "runsc": "<= 0.7 x"},
    "lease": {"runc": "<= 5 ms", "runsc": "<= 10 ms"},
    "rate": {"runc": ">= 0.8 x", "runsc": ">= 0.12 x"},
    "idle": {"runc": "<= 9 MiB", "runsc": "<= 25 MiB"},
    "output": {"runc": "<= 1.2 x", "runsc": "<= 5 x"},
}


async def docker(place: Place) -> list[Figure]:
    """Everything that performance is promised of, for runc and, in fewer rounds, for gVisor."""
    with _engine() as runtimes:
        return [figure for runtime in runtimes for figure in await _all(place, runtime)]


async def _all(place: Place, runtime: Runtime) -> list[Figure]:
    rounds = place.rounds if runtime == "runc" else 3
    return [
        *await _life(place, runtime, rounds=rounds),
        *await _leases(place, runtime, rounds=rounds),
        *await _calls(place, runtime, rounds=rounds),
        await _rate(place, runtime),
        await _idle(place, runtime),
        *await _output(place, runtime),
    ]


@contextmanager
def _engine() -> Iterator[list[Runtime]]:
    """Give the runtimes of an engine that has the image; none where no engine can be had."""
    if _words("docker", "image", "inspect", IMAGE) is not None:
        yield _runtimes()
        return
    try:
        with private_engine() as engine:
            os.environ["DOCKER_HOST"] = engine.address
            yield _runtimes()
    except NoEngine:
        yield []


def _runtimes() -> list[Runtime]:
    known = _words("docker", "info", "--format", "{{json .Runtimes}}") or ""
    return ["runc", "runsc"] if '"runsc"' in known else ["runc"]


def _words(*words: str) -> str | None:
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _cli(*words: str) -> Step:
    """Make a step out of a command of the engine's own client."""

    async def step() -> None:
        await anyio.run_process(["docker", *words], stdin=subprocess.DEVNULL)

    return step


async def _life(place: Place, runtime: Runtime, *, rounds: int) -> list[Figure]:
    """A sandbox from nothing to its first answer, and its end, beside a container for one command."""
    spec = _spec(place, runtime)
    bare = _cli("run", "--rm", "--network", "none", "--runtime", runtime, IMAGE, "true")
    cold, ends, floor, kills = [], [], [], []
    for number in range(rounds + 1):
        floor.append(await _seconds(bare))
        started = time.perf_counter()
        async with open_docker(spec) as sandbox:
            await sandbox.used_bytes()
            answered = time.perf_counter()
            cold.append(answered - started)
            answered = time.perf_counter()
        ends.append(time.perf_counter() - answered)
        kills.append(Victim().kill())
        # What the engine still does is not to slow down the next round's floor.
        await anyio.to_thread.run_sync(settle)
        if number == 0:
            cold, ends, floor, kills = [], [], [], []
    run, kill = single("docker run --rm true", floor), single("kill+wait", kills)
    return [
        against(f"{runtime}: cold sandbox", single("cold", cold), run, target=_TARGETS["cold"][runtime]),
        against(f"{runtime}: teardown", single("end", ends), kill, target="<= 5 ms"),
    ]


async def _leases(place: Place, runtime: Runtime, *, rounds: int) -> list[Figure]:
    """A sandbox that waits in a pool: leased and asked."""
    spec = _spec(place, runtime)
    leases, kills = [], []
    async with WarmPool(spec, opener=DockerSandbox) as pool:
        for _ in range(rounds):
            await pool.filled()
            kills.append(Victim().kill())
            started = time.perf_counter()
            async with pool.lease(spec) as sandbox:
                await sandbox.read_file("d0000/f000", max_bytes=KIB)
                leases.append(time.perf_counter() - started)
    lease, kill = single("lease", leases), single("kill+wait", kills)
    target = _TARGETS["lease"][runtime]
    return [against(f"{runtime}: lease a waiting one, first answer", lease, kill, target=target)]


async def _calls(place: Place, runtime: Runtime, *, rounds: int) -> list[Figure]:
    """A command, small and large files, and a refusal, through the whole broker."""
    small, large = Files(place.directory, size_bytes=KIB), Files(place.directory, size_bytes=MIB)
    async with (
        place.run(runtime=runtime) as run,
        place.run(runtime=runtime, terminal=0) as strict,
        DockerSandbox(_spec(place, runtime)) as bare,
    ):
        exec_step = {"docker exec true": _cli("exec", bare.container_id or "", "true")}
        steps = {
            "fork+exec": fork_exec,
            "true": call(run, "terminal", command="true"),
            "write+rename": small.write,
            "write 1 KiB": call(run, "write_file", path="out/small", content="a" * KIB),
            "read as text": small.read,
            "read 1 KiB": call(run, "read_file", path="out/small"),
            "write+rename 1 MiB": large.write,
            "write 1 MiB": call(run, "write_file", path="out/large", content=LARGE_TEXT),
            "read 1 MiB as text": large.read,
            "read 1 MiB": call(run, "read_file", path="out/large", limit=READ_LINES),
            "denied": call(strict, "terminal", expected="denied", command="true"),
        }
        taken = await interleave(steps, rounds=rounds, each=20)
        taken |= await interleave(exec_step, rounds=rounds, each=3)
    rows = {
        "terminal `true`": ("true", "fork+exec", _TARGETS["true"][runtime]),
        "docker exec true": ("docker exec true", "true", ">= 20 x"),
        "write_file 1 KiB": ("write 1 KiB", "write+rename", _TARGETS["write small"][runtime]),
        "read_file 1 KiB": ("read 1 KiB", "read as text", _TARGETS["read small"][runtime]),
        "write_file 1 MiB": ("write 1 MiB", "write+rename 1 MiB", _TARGETS["large"][runtime]),
        "read_file 1 MiB": ("read 1 MiB", "read 1 MiB as text", _TARGETS["large"][runtime]),
    }
    denied = taken["denied"].p50 * 1e3
    return [
        *(
            against(f"{runtime}: {name}", taken[ours], taken[floor], target=target)
            for name, (ours, floor, target) in rows.items()
        ),
        Figure(name=f"{runtime}: denied and journalled", value=denied, unit="ms", target="<= 0.03 ms"),
    ]


async def _rate(place: Place, runtime: Runtime) -> Figure:
    """Commands a second from 16 tasks, each with a run of its own."""
    count = 160 if place.quick or runtime == "runsc" else 1600
    async with AsyncExitStack() as stack:
        runs = [await stack.enter_async_context(place.run(runtime=runtime)) for _ in range(16)]
        pairs = [
            (await rate_of(runs, count=count), await fork_exec_rate(tasks=16, count=count)) for _ in range(3)
        ]
    ours, bare = sorted(pairs, key=lambda pair: pair[0] / pair[1])[1]
    return Figure(
        name=f"{runtime}: `true` from 16 tasks",
        value=ours,
        unit="calls/s",
        floor_name="fork+exec bash",
        floor=bare,
        ratio=ours / bare,
        target=_TARGETS["rate"][runtime],
    )


async def _idle(place: Place, runtime: Runtime) -> Figure:
    """Memory of sandboxes that wait, each after one command, with the engine's shims."""
    number = 4 if place.quick or runtime == "runsc" else 16
    async with AsyncExitStack() as stack:
        before = await anyio.to_thread.run_sync(_held)
        for _ in range(number):
            run = await stack.enter_async_context(place.run(runtime=runtime))
            await call(run, "terminal", command="true")()
        await anyio.sleep(0.5)
        held = await anyio.to_thread.run_sync(_held) - before
    each = held / number / MIB
    return Figure(
        name=f"{runtime}: {number} idle, PSS each",
        value=each,
        unit="MiB",
        target=_TARGETS["idle"][runtime],
        note="with the engine's shim",
    )


def _held() -> int:
    """Return the memory of every process that belongs to a container here, and of the engine's shims."""
    mine = {os.getpid(), *descendants(os.getpid())}
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in mine:
            try:
                words = (entry / "cmdline").read_bytes()
                if b"containerd-shim" in words or b"runsc" in words or b"MAGIC_NUMBER" in words:
                    total += proportional_bytes(int(entry.name))
            except OSError:
                continue
    return total


async def _output(place: Place, runtime: Runtime) -> list[Figure]:
    """A command that prints much: how long it takes and how much of it is held."""
    size = (10 if place.quick else 100) * MIB
    command = f"head -c {size} /dev/zero"
    ours, bare, held = [], [], []
    async with place.run(runtime=runtime) as run:
        for _ in range(3):
            floor = await anyio.to_thread.run_sync(flood, command.split())
            with PeakMemory() as memory:
                ours.append(await _seconds(call(run, "terminal", command=command)))
            bare.append(floor.seconds)
            held.append(memory.gained_bytes / MIB)
        observed = last_observed(run.directory.journal_path)
    exact = observed["output_bytes"] == size and observed["output_sha256"] == floor.sha256
    note = "size and digest reported right" if exact else f"reported {observed}"
    name = f"{runtime}: {size // MIB} MiB of output"
    floor_timing = single("read and hash", bare)
    return [
        against(name, single("ours", ours), floor_timing, target=_TARGETS["output"][runtime], note=note),
        Figure(name=f"{name}, gained by the broker", value=max(held), unit="MiB", target="<= 3 x the cap"),
    ]


def _spec(place: Place, runtime: Runtime) -> SandboxSpec:
    return SandboxSpec(kind="docker", workspace=place.tree(10), runtime=runtime, image=IMAGE)


async def _seconds(step: Step) -> float:
    started = time.perf_counter()
    await step()
    return time.perf_counter() - started

"""Figures of the journal: one record, many writers that wait for the disk, and verification."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import anyio

from benchmarks.floor import Appender
from benchmarks.loop import Place, call
from benchmarks.measure import Figure, against, interleave
from executor.audit.canonical import JsonValue
from executor.audit.clock import SystemClock
from executor.audit.journal import Journal
from executor.audit.signer import Signer
from executor.audit.verify import verify_journal
from executor.run import Run

RECORD_BYTES = 600


_DECIDED: Mapping[str, JsonValue] = {
    "call": "c-0001",
    "client_call": None,
    "source": "library",
    "tool": "write_file",
    "arguments": {
        "digest": "hmac-sha256:" + "0" * 64,
        "preview": "path=out/one content=x",
        "truncated": False,
    },
    "action": "deny",
    "reasons": [{"code": "budget.tools.write_file", "detail": "write_file: 0 of 1 left"}],
}


async def journal(place: Place) -> list[Figure]:
    """Append, refuse, group commit and verify."""
    return [*await _record(place), await _group_commit(place), await _verify(place)]


async def _record(place: Place) -> list[Figure]:
    """A record by itself, and a refused call, which is a decision and a record."""
    bare = Appender(place.directory / "appended", line_bytes=RECORD_BYTES)
    directory = place.directory / "journal"
    directory.mkdir()
    written = Journal.create(directory, signer=Signer.generate(), run_id="bench", clock=SystemClock())

    async def append() -> None:
        written.append("call.decided", _DECIDED)

    with closing(bare), written:
        async with place.run(terminal=0) as run:
            steps = {
                "bare append": bare.append,
                "record": append,
                "denied": call(run, "terminal", expected="denied", command="true"),
            }
            taken = await interleave(steps, rounds=place.rounds, each=200)
    floor = taken["bare append"]
    return [
        against("append a record", taken["record"], floor, target="<= 0.02 ms"),
        against("decide and append a record", taken["denied"], floor, target="<= 0.03 ms"),
    ]


async def _group_commit(place: Place) -> Figure:
    """Writes a second from 64 tasks when each waits for the disk, beside the same without waiting."""
    count = 640 if place.quick else 6400
    async with place.run(durability="disk") as synced, place.run() as unsynced:
        pairs = [(await _rate(synced, count=count), await _rate(unsynced, count=count)) for _ in range(3)]
    ours, floor = sorted(pairs, key=lambda pair: pair[0] / pair[1])[1]
    return Figure(
        name="writes from 64 tasks, on disk",
        value=ours,
        unit="calls/s",
        floor_name="not synced",
        floor=floor,
        ratio=ours / floor,
        target=">= 0.7 x",
    )


async def _rate(run: Run, *, count: int) -> float:
    async def some(number: int) -> None:
        step = call(run, "write_file", path=f"out/{number}", content="x" * 1024)
        for _ in range(count // 64):
            await step()

    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for number in range(64):
            group.start_soon(some, number)
    return count / (time.perf_counter() - started)


async def _verify(place: Place) -> Figure:
    records = 2_000 if place.quick else 50_000
    async with place.run(terminal=0) as run:
        step = call(run, "terminal", expected="denied", command="true")
        for _ in range(records):
            await step()
        path: Path = run.directory.journal_path
    started = time.perf_counter()
    verification = verify_journal(path, receipt=None, key=None)
    taken = time.perf_counter() - started
    if not verification.ok:
        raise RuntimeError(f"{path}: {verification.problems}")
    return Figure(
        name=f"verify {verification.records:,} records",
        value=verification.records / taken,
        unit="records/s",
        target=">= 50,000",
    )

"""Figures that must not grow: with the size of the tree, and with the calls that went before."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.loop import Place, call
from benchmarks.measure import Figure, against, interleave, single


async def trees(place: Place) -> list[Figure]:
    """Opening, a writing call, a command, and reading the changes, over a large tree and over ten files."""
    figures = []
    for files in (1_000, 10_000) if place.quick else (10_000, 500_000):
        figures += await _tree(place, files=files)
    return figures


async def _tree(place: Place, *, files: int) -> list[Figure]:
    opened: dict[int, list[float]] = {10: [], files: []}
    closed: dict[int, list[float]] = {10: [], files: []}
    for size in (10, files):
        place.tree(size)
    for _ in range(3):
        for size in (10, files):
            started = time.perf_counter()
            async with place.run(files=size) as run:
                opened[size].append(time.perf_counter() - started)
                await call(run, "write_file", path="out/one", content="x")()
                ended = time.perf_counter()
            closed[size].append(time.perf_counter() - ended)
    async with place.run() as small, place.run(files=files) as large:
        steps = {
            "write over 10": call(small, "write_file", path="out/one", content="x"),
            "write": call(large, "write_file", path="out/one", content="x"),
            "true over 10": call(small, "terminal", command="true"),
            "true": call(large, "terminal", command="true"),
        }
        taken = await interleave(steps, rounds=place.rounds, each=20)
    note = f"a bare scan of this tree takes {_scan_seconds(place.tree(files)) * 1e3:.0f} ms"
    open_large, open_small = single("open", opened[files]), single("open over 10", opened[10])
    close_large, close_small = single("end", closed[files]), single("end over 10", closed[10])
    return [
        against(f"open over {files:,} files", open_large, open_small, target="1 x"),
        against(f"write_file over {files:,} files", taken["write"], taken["write over 10"], target="1 x"),
        against(f"`true`, growth over {files:,} files", taken["true"], taken["true over 10"], target="1 x"),
        against(f"changes and end over {files:,} files", close_large, close_small, target="1 x", note=note),
    ]


def _scan_seconds(tree: Path) -> float:
    started = time.perf_counter()
    for directory, _, names in os.walk(tree):
        for name in names:
            os.lstat(os.path.join(directory, name))
    return time.perf_counter() - started


async def history(place: Place) -> list[Figure]:
    """The same call early and late in a long run."""
    before = 5_000 if place.quick else 100_000
    async with place.run() as fresh, place.run() as old:
        early = call(fresh, "write_file", path="out/one", content="x")
        late = call(old, "write_file", path="out/one", content="x")
        for _ in range(10):
            await early()
        for _ in range(before):
            await late()
        taken = await interleave({"after 10": early, "late": late}, rounds=place.rounds, each=50)
    return [against(f"write_file after {before:,} calls", taken["late"], taken["after 10"], target="1 x")]

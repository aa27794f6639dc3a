"""Take times of several things in turn, so that a busy machine slows all of them and not one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

Step = Callable[[], Awaitable[object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One line of the report.

    ``ratio`` is the median of the rounds' own ratios: a change of load between two rounds does not touch it.
    """

    name: str
    value: float
    unit: str
    floor_name: str | None = None
    floor: float | None = None
    ratio: float | None = None
    target: str = ""
    note: str = ""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds of each step of one kind, a list for every round."""

    name: str
    rounds: tuple[tuple[float, ...], ...]

    @property
    def p50(self) -> float:
        return statistics.median(seconds for one in self.rounds for seconds in one)

    @property
    def per_round(self) -> tuple[float, ...]:
        return tuple(statistics.median(one) for one in self.rounds)


def single(name: str, seconds: Sequence[float]) -> Timing:
    """Make a timing out of one step a round."""
    return Timing(name=name, rounds=tuple((one,) for one in seconds))


async def interleave(steps: Mapping[str, Step], *, rounds: int, each: int) -> dict[str, Timing]:
    """Do every step ``each`` times, then all of them again, for so many rounds; the first is not counted."""
    for step in steps.values():
        await step()
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            taken[name].append(tuple([await _seconds(step) for _ in range(each)]))
    return {name: Timing(name=name, rounds=tuple(times)) for name, times in taken.items()}


def against(name: str, timing: Timing, floor: Timing, *, target: str, note: str = "") -> Figure:
    """Put a timing beside its floor, in milliseconds."""
    ratios = [ours / bare for ours, bare in zip(timing.per_round, floor.per_round, strict=True)]
    return Figure(
        name=name,
        value=timing.p50 * 1e3,
        unit="ms",
        floor_name=floor.name,
        floor=floor.p50 * 1e3,
        ratio=statistics.median(ratios),
        target=target,
        note=note,
    )


async def _seconds(step: Step) -> float:
    started = time.perf_counter()
    await step()
    return time.perf_counter() - started

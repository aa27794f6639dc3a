"""Measure remit on this machine, each figure beside a bare operation of the same run.

Nothing is asserted: figures are for people who compare the ratios with the targets.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from benchmarks import engine, growth, journal, loop, report
from benchmarks.floor import stage_bwrap
from benchmarks.loop import Place
from benchmarks.measure import Figure

PARTS: dict[str, Callable[[Place], Awaitable[list[Figure]]]] = {
    "life": loop.life,
    "calls": loop.calls,
    "rate": loop.rate,
    "idle": loop.idle,
    "output": loop.output,
    "trees": growth.trees,
    "history": growth.history,
    "journal": journal.journal,
    "docker": engine.docker,
}


def main() -> int:
    """Measure the parts asked for and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"of {', '.join(PARTS)}; default all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and smaller trees, to see that it works"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    # Trees of many files are not to be left behind by whoever stops this.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        place = Place(directory=directory, quick=options.quick, bwrap=stage_bwrap(directory))
        show = _ignore if options.json else _show
        if not options.json:
            print(report.heading())
        figures = anyio.run(_measure, options.parts or list(PARTS), place, show)
    if options.json:
        print(report.as_json(figures, quick=options.quick))
    return 0


async def _measure(parts: list[str], place: Place, show: Callable[[list[Figure]], None]) -> list[Figure]:
    figures: list[Figure] = []
    for part in parts:
        print(f"measuring {part}", file=sys.stderr)
        measured = await PARTS[part](place)
        show(measured)
        figures += measured
    return figures


def _show(figures: list[Figure]) -> None:
    print(report.as_rows(figures), flush=True)


def _ignore(_: list[Figure]) -> None:
    """With --json everything is printed at the end."""


if __name__ == "__main__":
    sys.exit(main())

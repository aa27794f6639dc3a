"""The figures as a table or as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence

from benchmarks.measure import Figure

COLUMNS = ("what", "measured", "floor", "ratio", "target", "")
WIDTHS = (42, 18, 30, 10, 16, 0)


def as_json(figures: Sequence[Figure], *, quick: bool) -> str:
    """Return one JSON document with the host and all figures."""
    return json.dumps(
        {"host": host(), "quick": quick, "figures": [figure.to_json() for figure in figures]}, indent=2
    )


def heading() -> str:
    """Return the names of the columns, underlined."""
    line = _line(COLUMNS)
    return f"{line}\n{'-' * sum(WIDTHS)}"


def as_rows(figures: Sequence[Figure]) -> str:
    """Return figures as lines under the heading; they read without colour."""
    return "\n".join(_line(_row(figure)) for figure in figures)


def host() -> dict[str, object]:
    """Say what the figures were measured on."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": [round(value, 2) for value in os.getloadavg()],
        "root": os.geteuid() == 0,
    }


def _line(cells: Sequence[str]) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def _row(figure: Figure) -> tuple[str, ...]:
    floor = "" if figure.floor is None else f"{_number(figure.floor)} {figure.floor_name}"
    ratio = "" if figure.ratio is None else f"{_number(figure.ratio)} x"
    return (figure.name, f"{_number(figure.value)} {figure.unit}", floor, ratio, figure.target, figure.note)


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"

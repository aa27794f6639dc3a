"""Sizes and durations in words."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size_text(count: int) -> str:
    """``262144`` is ``256 KiB``; what is not a round number of a unit keeps one decimal."""
    if count < 1024:
        return f"{count} bytes"
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    value = count / 1024**power
    return f"{value:.0f} {_UNITS[power - 1]}" if value == int(value) else f"{value:.1f} {_UNITS[power - 1]}"


def duration_text(seconds: float) -> str:
    """``90`` is ``1 min 30 s``."""
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)

"""How far a replay has come: one line on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from typing import Self

from executor.cli.text import one_line
from executor.replay import ReplayedCall

_WIDTH = 78


class Progress:
    """Rewrites one line of stderr while it is a terminal; use as a context manager, which clears it."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def __call__(self, *, done: int, total: int, call: ReplayedCall) -> None:
        """Show the call that has just ended."""
        self._write(f"{done}/{total} {call.status} {call.tool}")

    def _write(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r{one_line(text, limit=_WIDTH).ljust(_WIDTH)}\r")
            sys.stderr.flush()

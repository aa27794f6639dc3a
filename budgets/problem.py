"""What is wrong with a remit, told so that its author can mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing wrong: where, what, the value seen and what to write instead.

    Attributes:
        line: Counted from 1; 0 when there is no text to point at.
        where: The key, as ``budget.tools.terminal``; empty for the document as a whole.
    """

    line: int
    where: str
    message: str
    seen: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        seen = f" (seen: {self.seen})" if self.seen is not None else ""
        hint = f"\n  hint: {self.hint}" if self.hint is not None else ""
        return f"{place}{self.message}{seen}{hint}"


class RemitInvalid(Exception):
    """A remit that is refused, with every problem found and not only the first."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(f"{_place(source, problem.line)}: {problem}" for problem in self.problems))


def show(value: object) -> str:
    """Show a value on one short line of printable ASCII."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _place(source: str, line: int) -> str:
    return f"{source}:{line}" if line else source

"""What a recording can be refused for."""

from __future__ import annotations

from executor.errors import ExecutorError

_SEEN_CHARACTERS = 120


class RecordingInvalid(ExecutorError):
    """A file that is not a recording, or not one that can be read to its end.

    Attributes:
        source: The file.
        where: Line or element inside it, or None for the file as a whole.
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str,
        where: str | None = None,
        seen: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.source = source
        self.where = where
        place = source if where is None else f"{source}, {where}"
        shown = "" if seen is None else f", seen: {shorten(seen)}"
        super().__init__(f"{place}: {problem}{shown}", hint=hint)


def shorten(text: str) -> str:
    """Quote text from a file in plain ASCII on one line, cut to a length that fits a message."""
    cut = text if len(text) <= _SEEN_CHARACTERS else text[:_SEEN_CHARACTERS] + "…"
    return ascii(cut)

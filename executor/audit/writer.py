"""Append whole lines to a file, and hold back the space that must still be there when the disk is full."""

from __future__ import annotations

from contextlib import suppress

from executor.audit.errors import JournalUnavailable
from executor.audit.sink import Sink

_AHEAD_BYTES = 256 * 1024


class LineWriter:
    """Whole lines or nothing: what could not be written in one piece is cut off again."""

    def __init__(self, sink: Sink, *, size: int) -> None:
        self.size = size
        self.reserves = True
        self._sink = sink
        self._held_to = size
        self._broken: str | None = None

    def hold(self, length: int) -> None:
        """Hold back space after what is written, and some more so that this is rarely needed.

        Raises:
            JournalUnavailable: There is no such space.
        """
        refusal: OSError | None = None
        for goal in (self.size + length + _AHEAD_BYTES, self.size + length):
            try:
                self.reserves = self._sink.reserve(self.size, goal - self.size)
            except OSError as error:
                refusal = error
                continue
            self._held_to = goal
            return
        raise JournalUnavailable(f"no space to hold back for closing records: {_words(refusal)}") from refusal

    def write(self, line: bytes, *, keep: int) -> None:
        """Append a line, with ``keep`` bytes still held back after it; with 0 it may use what is held back.

        Raises:
            JournalUnavailable: The line is not in the file.
        """
        if self._broken:
            raise JournalUnavailable(self._broken)
        end = self.size + len(line)
        if keep and self.reserves and end + keep > self._held_to:
            self.hold(len(line) + keep)
        try:
            written = self._sink.write(line)
        except OSError as error:
            self._take_back()
            raise JournalUnavailable(f"a record could not be written: {_words(error)}") from error
        if written != len(line):
            self._take_back()
            raise JournalUnavailable(f"a record was cut short: {written} of {len(line)} bytes went in")
        self.size = end

    def sync(self) -> None:
        """Return when everything written is on the disk. May be called from another thread.

        Raises:
            JournalUnavailable: The disk did not take it; nothing can be written any more.
        """
        if self._broken:
            raise JournalUnavailable(self._broken)
        try:
            self._sink.sync()
        except OSError as error:
            # After a failed sync the kernel may have dropped the pages: asking again could wrongly say yes.
            self._broken = f"the journal could not be made durable: {_words(error)}"
            raise JournalUnavailable(self._broken) from error

    def close(self) -> None:
        """Give back what was held and let go of the file. Safe to call twice."""
        if self._held_to > self.size and not self._broken:
            # A file that keeps its tail of empty blocks is no worse than untidy.
            with suppress(OSError):
                self._sink.truncate(self.size)
        self._held_to = self.size
        self._broken = self._broken or "the journal is closed"
        self._sink.close()

    def _take_back(self) -> None:
        """Undo a torn write. This also frees what was held back, so hold as much again, if there is any."""
        try:
            self._sink.truncate(self.size)
        except OSError as error:
            self._broken = f"a torn record could not be cut off: {_words(error)}"
            return
        held, self._held_to = self._held_to - self.size, self.size
        if self.reserves and held > 0:
            # Somebody else may have taken the space in between: then closing records fail like any other.
            with suppress(OSError):
                self._sink.reserve(self.size, held)
                self._held_to = self.size + held


def _words(error: OSError | None) -> str:
    return "refused" if error is None else error.strerror or str(error)

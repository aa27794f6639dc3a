"""The journal of a run together with what its records come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from budgets.call import JsonValue
from executor.audit.journal import Journal
from executor.tally import Tally


class Book:
    """Writes records and keeps the tally of them."""

    def __init__(self, journal: Journal, tally: Tally) -> None:
        self.journal = journal
        self.tally = tally

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.journal.run_id

    @property
    def elapsed_seconds(self) -> float:
        """How long the run has been open, over all its processes."""
        return self.journal.elapsed_seconds

    @property
    def waits_for_disk(self) -> bool:
        """Whether ``flush`` has anything to do under this run's policy."""
        return self.journal.durability == "disk"

    def append(self, kind: str, body: Mapping[str, JsonValue]) -> int:
        """Write one record and give its number.

        Raises:
            JournalUnavailable: It is not in the journal, and what it would have allowed must not happen.
            JournalClosed: The run was closed.
        """
        appended = self.journal.append(kind, body)
        self.tally.note(appended.seq, kind, body)
        return appended.seq

    async def flush(self) -> None:
        """Return when everything written so far is as durable as the run's policy says.

        Raises:
            JournalUnavailable: It could not be made so.
        """
        await self.journal.flush()

    def fingerprint(self, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Give what the journal says of a call's arguments."""
        return cast("dict[str, JsonValue]", self.journal.fingerprints.arguments(arguments))

    def output(self, data: bytes, *, truncated: bool) -> dict[str, JsonValue]:
        """Give what the journal says of a call's output."""
        digest = self.journal.fingerprints.digest(data) if data else None
        return {"bytes": len(data), "digest": digest, "truncated": truncated}

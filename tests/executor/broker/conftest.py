"""A broker with everything around it in memory, so that a thousand of them can be made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from budgets.ledger import Ledger
from executor.answers import Answers
from executor.audit.clock import SystemClock
from executor.audit.errors import JournalUnavailable
from executor.audit.journal import Appended
from executor.book import Book
from executor.broker import Broker
from executor.performer import Performer
from executor.tally import Tally
from sandboxes.base import FileWritten


class MemoryJournal:
    """Keeps records in a list; can be told to fail."""

    run_id = "memory"
    durability = "disk"

    def __init__(self):
        self.records = []
        self.failing = set()
        self.flush_fails = False
        self.refused_calls = 0
        self.fingerprints = SimpleNamespace(
            arguments=lambda arguments: {"digest": repr(arguments), "preview": "", "truncated": False},
            digest=lambda data: "digest",
        )
        self._clock = SystemClock()
        self._start = self._clock.monotonic()

    @property
    def elapsed_seconds(self):
        return self._clock.monotonic() - self._start

    def append(self, kind, body):
        if kind in self.failing:
            raise JournalUnavailable("no space")
        self.records.append((kind, body))
        return Appended(seq=len(self.records) - 1, hash="")

    async def flush(self):
        await anyio.lowlevel.checkpoint()
        if self.flush_fails:
            raise JournalUnavailable("sync failed")

    def of(self, kind):
        return [body for found, body in self.records if found == kind]


class MemorySandbox:
    """Writes into a dictionary, after giving everybody else a turn."""

    def __init__(self):
        self.written = {}

    async def write_file(self, path, data, **options):
        await anyio.lowlevel.checkpoint()
        self.written[path] = data
        return FileWritten(created=True, bytes_written=len(data), directories_created=0)


@pytest.fixture
def make_broker():
    def make(contract, *, sandbox=None, **options):
        sandbox = sandbox or MemorySandbox()

        async def live():
            return sandbox

        async def discard(given):
            sandbox.discarded = True

        workshop = SimpleNamespace(sandbox=live, discard=discard, layer=None)
        journal = MemoryJournal()
        broker = Broker(
            remit=contract,
            ledger=Ledger.open(contract.budget, started_seconds=0.0),
            book=Book(journal, Tally()),
            performer=Performer(remit=contract, workshop=workshop),
            answers=Answers(Path("/nonexistent/outcomes")),
            **options,
        )
        sandbox.journal = journal
        return broker, sandbox

    return make

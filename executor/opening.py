"""The start of a run, and the start of its second life: nothing that was spent comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from budgets.ledger import Ledger, LedgerError
from budgets.remit import Remit, digest, to_document
from executor.answers import Answers
from executor.audit.clock import SystemClock
from executor.audit.journal import Durability, Journal
from executor.audit.reader import Record
from executor.audit.resume import Recovered
from executor.audit.signer import Signer
from executor.book import Book
from executor.errors import RunNotResumable
from executor.store import RunDirectory
from executor.tally import AnswersFold, LedgerFold, Tally
from sandboxes.base import SandboxSpec
from sandboxes.workspace.errors import ChangesInvalid
from sandboxes.workspace.manifest import Manifest, load_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A journal that can be written, with what its records come to."""

    book: Book
    ledger: Ledger
    answers: Answers
    manifest: Manifest | None
    tripwires: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """Makes or takes up the journal of one run."""

    remit: Remit
    directory: RunDirectory
    signer: Signer
    durability: Durability

    def started(self, spec: SandboxSpec, tripwires: Mapping[str, str], *, source: str) -> Opened:
        """Start a journal whose first record holds the whole contract."""
        document = to_document(self.remit)
        self.directory.remit_path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        # As text: the journal's canonical JSON holds no fractions, and times may be some.
        canonical = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        journal = Journal.create(
            self.directory.path,
            signer=self.signer,
            run_id=self.directory.run_id,
            clock=SystemClock(),
            durability=self.durability,
            opened={
                "remit": digest(self.remit),
                "task": self.remit.task.id,
                "task_class": self.remit.task.class_,
                "source": source,
                "workspace": str(spec.workspace),
                "details": {"document": canonical, "tripwires": dict(tripwires)},
            },
        )
        return Opened(
            book=Book(journal, Tally()),
            ledger=Ledger.open(self.remit.budget, started_seconds=0.0),
            answers=Answers(self.directory.outcomes_path),
            manifest=None,
            tripwires=tripwires,
        )

    def resumed(self, tripwires: Mapping[str, str]) -> Opened:
        """Take up the journal that an earlier process left, with the ledger that its records come to.

        A call that it was carrying out stays charged. Tripwires are compared with the run's first start.

        Raises:
            RunNotResumable: It was opened under another remit, or what it kept of the changes is not there.
        """
        journal, recovered = Journal.resume(
            self.directory.path,
            signer=self.signer,
            run_id=self.directory.run_id,
            clock=SystemClock(),
            durability=self.durability,
        )
        try:
            return self._rebuilt(journal, recovered, tripwires)
        except LedgerError as error:
            journal.close()
            raise RunNotResumable(
                f"run {self.directory.run_id}: its records do not add up: {error}"
            ) from error
        except BaseException:
            journal.close()
            raise

    def _rebuilt(self, journal: Journal, recovered: Recovered, tripwires: Mapping[str, str]) -> Opened:
        tally, spent, answered = Tally(), LedgerFold(self.remit.budget), AnswersFold()
        first: Mapping[str, Any] = {}
        kept: str | None = None
        for record in recovered.replay():
            if record.seq == 0:
                first = record.body
                self._require_same_remit(record)
            tally.note(record.seq, record.kind, record.body)
            spent.note(record.kind, record.body)
            answered.note(record.kind, record.body)
            if record.kind == "workspace.changes":
                kept = str(record.body["manifest"])
        tally.note(recovered.records, "run.resumed", {})
        answers = Answers(self.directory.outcomes_path)
        answers.recover(answered.answers)
        details = first.get("details", {})
        return Opened(
            book=Book(journal, tally),
            ledger=spent.finish(),
            answers=answers,
            manifest=None if kept is None else self._kept_changes(kept),
            tripwires={**tripwires, **details.get("tripwires", {})},
        )

    def _require_same_remit(self, record: Record) -> None:
        if record.body.get("remit") != digest(self.remit):
            raise RunNotResumable(
                f"run {self.directory.run_id}: was opened under another remit",
                hint=f"its own remit is {self.directory.remit_path}",
            )

    def _kept_changes(self, expected: str) -> Manifest:
        try:
            manifest = load_manifest(self.directory.changes_path)
        except ChangesInvalid as error:
            raise RunNotResumable(f"run {self.directory.run_id}: {error}") from error
        if manifest.digest != expected:
            raise RunNotResumable(
                f"run {self.directory.run_id}: the kept changes are not those that the journal names"
            )
        return manifest

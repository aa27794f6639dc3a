"""The start of a run, and the start of its second life: nothing that was spent comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgets.ledger import Ledger, LedgerError
from budgets.remit import Remit, digest, to_document
from executor import tripwire
from executor.answers import Answer, Answers
from executor.audit.clock import SystemClock
from executor.audit.journal import Durability, Journal
from executor.audit.reader import read_records
from executor.audit.resume import Recovered
from executor.audit.signer import Signer
from executor.book import Book
from executor.errors import RunNotResumable
from executor.plan import plan_sandbox
from executor.store import RunDirectory, RunStore
from executor.tally import AnswersFold, LedgerFold, Tally
from sandboxes.base import SandboxSpec
from sandboxes.workspace.errors import ChangesInvalid
from sandboxes.workspace.manifest import Manifest, load_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A journal that can be written, with what its records come to."""

    directory: RunDirectory
    signer: Signer
    spec: SandboxSpec
    book: Book
    ledger: Ledger
    answers: Answers
    manifest: Manifest | None
    tripwires: Mapping[str, str]
    opened_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """Makes or takes up the journal of one run. Waits for disks; call it from a thread that may."""

    remit: Remit
    base: Path
    store: RunStore
    source: str
    durability: Durability

    def started(self, held: ExitStack, _resume: str | None) -> Opened:
        """Start a journal whose first record holds the whole contract. ``held`` gets what must be let go of.

        Raises:
            RemitUnenforceable: The remit cannot be held to what it promises.
        """
        opened_us = time.time_ns() // 1000
        spec = plan_sandbox(self.remit, base=self.base, state=self.store.root)
        tripwires = tripwire.fingerprints(self.remit.tripwires)
        signer = self.store.signer()
        directory = self.store.create()
        held.enter_context(directory.lock())
        document = to_document(self.remit)
        directory.remit_path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        # As text: the journal's canonical JSON holds no fractions, and times may be some.
        canonical = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        journal = Journal.create(
            directory.path,
            signer=signer,
            run_id=directory.run_id,
            clock=SystemClock(),
            durability=self.durability,
            opened={
                "remit": digest(self.remit),
                "task": self.remit.task.id,
                "task_class": self.remit.task.class_,
                "source": self.source,
                "workspace": str(spec.workspace),
                "details": {
                    "document": canonical,
                    "opened_us": opened_us,
                    "tripwires": dict(tripwires),
                },
            },
        )
        held.enter_context(journal)
        return Opened(
            directory=directory,
            signer=signer,
            spec=spec,
            book=Book(journal, Tally()),
            ledger=Ledger.open(self.remit.budget, started_seconds=0.0),
            answers=held.enter_context(Answers(directory.outcomes_path)),
            manifest=None,
            tripwires=tripwires,
            opened_us=opened_us,
        )

    def resumed(self, held: ExitStack, resume: str | None) -> Opened:
        """Take up the journal that an earlier process left, with the ledger that its records come to.

        A call that it was carrying out stays charged. Tripwires are compared with the run's first start.

        Raises:
            RemitUnenforceable: The remit cannot be held to what it promises.
            RunNotResumable: It was opened under another remit or on another workspace, or what it kept of the
                changes is not there.
        """
        spec = plan_sandbox(self.remit, base=self.base, state=self.store.root)
        signer = self.store.signer()
        directory = self.store.open(resume or "")
        held.enter_context(directory.lock())
        self._require_same(directory, workspace=spec.workspace)
        journal, recovered = Journal.resume(
            directory.path,
            signer=signer,
            run_id=directory.run_id,
            clock=SystemClock(),
            durability=self.durability,
        )
        held.enter_context(journal)
        state = self._rebuilt(recovered, directory)
        answers = held.enter_context(Answers(directory.outcomes_path))
        answers.recover(state.answered)
        return Opened(
            directory=directory,
            signer=signer,
            spec=spec,
            book=Book(journal, state.tally),
            ledger=state.ledger,
            answers=answers,
            manifest=None if state.kept is None else _kept_changes(directory, state.kept),
            tripwires=state.tripwires,
            opened_us=state.opened_us,
        )

    def _require_same(self, directory: RunDirectory, *, workspace: Path) -> None:
        first = next(read_records(directory.journal_path), None)
        if first is None:
            return
        if first.body.get("remit") != digest(self.remit):
            raise RunNotResumable(
                f"run {directory.run_id}: was opened under another remit",
                hint=f"its own remit is {directory.remit_path}",
            )
        if first.body.get("workspace") != str(workspace):
            raise RunNotResumable(
                f"run {directory.run_id}: worked on {first.body.get('workspace')}, not on {workspace}"
            )

    def _rebuilt(self, recovered: Recovered, directory: RunDirectory) -> Rebuilt:
        tally, spent, answered = Tally(), LedgerFold(self.remit.budget), AnswersFold()
        details: Mapping[str, Any] = {}
        kept: str | None = None
        try:
            for record in recovered.replay():
                body: Mapping[str, Any] = record.body
                tally.note(record.seq, record.kind, body)
                spent.note(record.kind, body)
                answered.note(record.kind, body)
                if record.kind == "run.opened":
                    details = body["details"]
                if record.kind == "workspace.changes":
                    kept = str(body["manifest"])
        except LedgerError as error:
            raise RunNotResumable(f"run {directory.run_id}: its records do not add up: {error}") from error
        tally.note(recovered.records, "run.resumed", {})
        return Rebuilt(
            tally=tally,
            ledger=spent.finish(),
            answered=answered.answers,
            tripwires=details["tripwires"],
            opened_us=details["opened_us"],
            kept=kept,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """What the records of an earlier process come to."""

    tally: Tally
    ledger: Ledger
    answered: Mapping[str, Answer]
    tripwires: Mapping[str, str]
    opened_us: int
    kept: str | None


def _kept_changes(directory: RunDirectory, expected: str) -> Manifest:
    try:
        manifest = load_manifest(directory.changes_path)
    except ChangesInvalid as error:
        raise RunNotResumable(f"run {directory.run_id}: {error}") from error
    if manifest.digest != expected:
        raise RunNotResumable(
            f"run {directory.run_id}: the kept changes are not those that the journal names"
        )
    return manifest

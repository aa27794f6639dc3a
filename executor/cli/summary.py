"""What a run comes to at a glance, read from its journal without judging it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from budgets.call import JsonValue
from budgets.remit import Remit, digest
from executor.audit.errors import JournalDamaged
from executor.audit.reader import Record, read_records
from executor.cli.errors import InvocationError
from executor.store import RunDirectory, RunStore

RunState = Literal["open", "suspended", "finished", "damaged"]


@dataclass(kw_only=True, slots=True)
class RunSummary:
    """One run.

    Attributes:
        state: ``open`` is at work, or was killed at it; ``damaged`` has an unreadable journal.
        verdict: Of the journal's own record; unverified.
    """

    run: str
    task: str = ""
    remit: str = ""
    source: str = ""
    workspace: str = ""
    started: str = ""
    ended: str = ""
    state: RunState = "open"
    verdict: str | None = None
    allowed: int = 0
    denied: int = 0

    def to_json(self) -> dict[str, JsonValue]:
        """Give it as ``remit runs --json`` prints it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def is_of(self, remit: Remit, *, base: Path) -> bool:
        """Say whether it is a run of the remit's task, on the remit's workspace as seen from ``base``."""
        workspace = (base / Path(remit.scope.workspace).expanduser()).resolve()
        return (self.task, self.workspace) == (remit.task.id, str(workspace))

    def note(self, record: Record) -> None:
        """Take one record into account."""
        self.ended = record.ts
        body = record.body
        match record.kind:
            case "run.opened":
                self.started = record.ts
                self.task, self.remit = _text(body, "task"), _text(body, "remit")
                self.source, self.workspace = _text(body, "source"), _text(body, "workspace")
            case "run.resumed":
                self.state = "open"
            case "call.decided":
                self.allowed += body.get("action") == "allow"
                self.denied += body.get("action") == "deny"
            case "verdict":
                self.verdict = _text(body, "outcome")
            case "run.closed":
                self.state = "finished" if body.get("state") == "finished" else "suspended"


def summarise(directory: RunDirectory) -> RunSummary | None:
    """Read one run; None when it has no journal."""
    summary = RunSummary(run=directory.run_id)
    try:
        for record in read_records(directory.journal_path):
            summary.note(record)
    except FileNotFoundError:
        return None
    except JournalDamaged:
        summary.state = "damaged"
    return summary


def unfinished_run(store: RunStore, remit: Remit, *, base: Path) -> str | None:
    """Find the newest run of the remit's task on this workspace that has no verdict yet.

    Raises:
        InvocationError: It was opened under another remit.
    """
    for directory in reversed(store.list()):
        summary = summarise(directory)
        if (
            summary is None
            or summary.state not in ("open", "suspended")
            or not summary.is_of(remit, base=base)
        ):
            continue
        if summary.remit != digest(remit):
            raise InvocationError(
                f"task {remit.task.id} has the unfinished run {summary.run}, opened under another remit",
                hint=f"judge it: remit finish {summary.run}; or leave it and start anew: --new",
            )
        return summary.run
    return None


def finished_run(store: RunStore, remit: Remit, *, base: Path) -> str | None:
    """Find the newest run of exactly this remit on this workspace that was judged."""
    for directory in reversed(store.list()):
        summary = summarise(directory)
        if summary is None or summary.state != "finished" or summary.remit != digest(remit):
            continue
        if summary.is_of(remit, base=base):
            return summary.run
    return None


def workspace_base(remit: Remit, workspace: Path) -> Path:
    """Find the directory that the remit's own ``scope.workspace`` leads to ``workspace`` from.

    Raises:
        InvocationError: There is none.
    """
    given = Path(remit.scope.workspace).expanduser()
    base = workspace
    if not given.is_absolute():
        for part in reversed([part for part in given.parts if part != "."]):
            base = base / "-" if part == ".." else base.parent
    if (base / given).resolve() != workspace:
        raise InvocationError(
            f"scope.workspace {remit.scope.workspace} does not lead to {workspace}, where the run worked"
        )
    return base


def _text(body: Mapping[str, object], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""

"""Journals, receipts and clocks for tests of the audit part."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from executor.audit.journal import Journal, Seal
from executor.audit.receipt import build_statement, sign, write_receipt
from executor.audit.signer import Signer

RUN_ID = "run-1"


@dataclass
class FakeClock:
    """Time that only moves when it is told to."""

    now: datetime = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    seconds: float = 100.0

    def wall_time(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.seconds

    def pass_seconds(self, seconds: float) -> None:
        self.seconds += seconds
        self.now += timedelta(seconds=seconds)


@dataclass
class SealedRun:
    """A finished run on disk."""

    directory: Path
    signer: Signer
    seal: Seal
    lines: list[bytes] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        return self.directory / "journal.jsonl"

    @property
    def receipt(self) -> Path:
        return self.directory / "receipt.json"


def open_journal(directory: Path, **more) -> Journal:
    """A new journal with a fresh key and a clock that stands still, unless given."""
    more.setdefault("signer", Signer.generate())
    more.setdefault("clock", FakeClock())
    return Journal.create(directory, **{"run_id": RUN_ID, **more})


def decided(journal: Journal, call: str, *, action: str = "allow", **arguments) -> dict:
    return {
        "call": call,
        "client_call": f"client-{call}",
        "source": "library",
        "tool": "terminal",
        "arguments": journal.fingerprints.arguments(arguments or {"command": "true"}),
        "action": action,
        "reasons": [{"code": "budget.calls", "detail": "none left"}] if action == "deny" else [],
        "cost": {"tool": "terminal", "written_bytes": 0},
        "effects": {"paths": [{"path": "a", "access": "read"}], "written_bytes": 0, "runs_command": True},
    }


def ended(call: str) -> dict:
    return {
        "call": call,
        "status": "ok",
        "exit_code": 0,
        "output": {"bytes": 3, "digest": None, "truncated": False},
        "output_bytes": 3,
        "elapsed_us": 1200,
    }


def append_story(journal: Journal) -> None:
    """One record of each kind that a run writes itself, with calls that end, are denied and break a rule."""
    journal.append("sandbox.opened", SANDBOX)
    for number in range(3):
        journal.append("call.decided", decided(journal, f"c-{number}"))
        journal.append("call.ended", ended(f"c-{number}"))
    refused = journal.append("call.decided", decided(journal, "c-3", action="deny"))
    journal.append(
        "violation", {"code": "budget.calls", "detail": "none left", "call": "c-3", "record": refused.seq}
    )
    journal.checkpoint()
    journal.append("route.noted", {"turn": 0, "tier": 2, "source": "recording", "served_model": "m"})
    journal.append("workspace.changes", {"strategy": "overlay", "added": 1, "changes": [CHANGE]})
    journal.append("check.ended", {"name": "tests", "argv": ["true"], "status": "passed", "exit_code": 0})
    journal.append("verdict", {"outcome": "mixed", "reasons": VERDICT_REASONS})


def seal_run(directory: Path, *, signer: Signer | None = None, run_id: str = RUN_ID) -> SealedRun:
    """A finished run with its receipt."""
    signer = signer or Signer.generate()
    with open_journal(directory, signer=signer, run_id=run_id) as journal:
        append_story(journal)
        seal = journal.seal("finished")
    write_receipt(sign(make_statement(seal, run_id=run_id), signer), directory / "receipt.json")
    lines = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    return SealedRun(directory=directory, signer=signer, seal=seal, lines=lines)


def make_statement(seal: Seal, *, run_id: str = RUN_ID, **more) -> dict:
    parts = {
        "run": {
            "id": run_id,
            "task": "t",
            "started": "2026-11-22T12:00:00Z",
            "ended": "2026-11-22T12:00:00Z",
            "elapsed_us": 1,
        },
        "remit": {"digest": "sha256:" + "0" * 64},
        "sandbox": SANDBOX,
        "budget": {"declared": {"calls": 3}, "used": {"calls": 3}, "remaining": {"calls": 0}},
        "calls": {"decided": 4, "allowed": 3, "denied": 1, "ended": 3},
        "violations": [{"code": "budget.calls", "detail": "none left", "record": 10, "call": "c-3"}],
        "changes": {"files": [CHANGE], "applied": False},
        "checks": [{"name": "tests", "argv": ["true"], "status": "passed", "exit_code": 0}],
        "verdict": {"outcome": "mixed", "reasons": VERDICT_REASONS},
    }
    return build_statement(seal=seal, **{**parts, **more})


CHANGE = {
    "path": "router.py",
    "change": "added",
    "kind": "file",
    "mode": 0o644,
    "size": 3,
    "sha256": "ab" * 32,
}
VERDICT_REASONS = [{"code": "call.denied", "detail": "c-3", "records": [9, 10]}]
SANDBOX = {
    "id": "s-1",
    "backend": "fake",
    "backend_version": "1",
    "guest_digest": "sha256:" + "1" * 64,
    "strategy": "overlay",
    "details": {"kernel": "6.18"},
    "controls": [
        {"name": "network", "configured": "none", "observed": "none", "state": "observed", "required": True}
    ],
}

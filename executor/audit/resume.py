"""Find out what a process that is gone left in its journal, before another one goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from executor.audit.canonical import JsonValue
from executor.audit.checkpoint import Checkpoint, load_checkpoint
from executor.audit.errors import JournalClosed, JournalDamaged
from executor.audit.reader import Record, read_lines, read_records
from executor.audit.scan import Anchors, OpenCall, Scanner, Tail
from executor.audit.signer import VerifierKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovered:
    """A journal that held together up to a last line that may have been torn.

    Attributes:
        records: How many whole records there are.
        open_calls: Calls that were allowed and never ended, in order.
        torn_bytes: Length of the unfinished last line.
        elapsed_seconds: How long the run had been open at its last record.
        suspended: Whether it was closed cleanly, to be taken up again.
    """

    path: Path
    tail: Tail
    records: int
    open_calls: tuple[OpenCall, ...]
    torn_bytes: int
    torn_sha256: str | None
    elapsed_seconds: float
    suspended: bool

    def replay(self) -> Iterator[Record]:
        """Yield the records that were there, in order, for whoever rebuilds a state from them."""
        for record in read_records(self.path):
            if record.seq >= self.records:
                return
            yield record

    def noted(self) -> dict[str, JsonValue]:
        """Return what the ``run.resumed`` record says of this."""
        return {
            "records": self.records,
            "torn_bytes": self.torn_bytes,
            "torn_sha256": self.torn_sha256,
            "open_calls": [call.call for call in self.open_calls],
        }


def recover(path: Path, *, run_id: str, key: VerifierKey, checkpoint: Path) -> Recovered:
    """Check a journal from first line to last, and against the checkpoint beside it. Nothing is changed.

    A last line without a newline is what a killed writer leaves and is no damage; anything else that is
    wrong is.

    Raises:
        JournalDamaged: It is empty, was changed, was cut, or was written under another key.
        JournalClosed: The run is finished.
    """
    scanner = Scanner(Anchors(key=key, checkpoints=_kept(checkpoint)))
    torn = b""
    for line in read_lines(path):
        if line.endswith(b"\n"):
            scanner.feed(line[:-1])
        else:
            torn = line
    scanner.finish()
    if scanner.problems:
        first = scanner.problems[0]
        raise JournalDamaged(
            f"{path}: record {first.seq}: {first.code}: {first.detail}",
            hint="start a new run; this one can only be read",
        )
    if scanner.run != run_id:
        raise JournalDamaged(f"{path}: is the journal of run {scanner.run!r}, not of {run_id!r}")
    if scanner.closed == "finished":
        raise JournalClosed(f"{path}: the run is finished")
    return Recovered(
        path=path,
        tail=scanner.tail,
        records=scanner.tail.tree.size,
        open_calls=tuple(scanner.open_calls.values()),
        torn_bytes=len(torn),
        torn_sha256=sha256(torn).hexdigest() if torn else None,
        elapsed_seconds=scanner.tail.elapsed_us / 1_000_000,
        suspended=scanner.closed == "suspended",
    )


def _kept(path: Path) -> tuple[Checkpoint, ...]:
    try:
        return (load_checkpoint(path),)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise JournalDamaged(f"{path}: not a checkpoint: {error}") from error

"""Write a run's records: one line, one system call, in order, chained, signed now and then.

A call may only run when its decision is in the journal, and a call that ran must find room for its end. So
space is held back in advance: when the disk is full, new decisions are refused while the ends of running
calls and the closing records still fit. After the first refusal the journal takes no more decisions in this
process; ``resume`` goes on once there is space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Literal, NamedTuple, Self

import anyio
from anyio import to_thread

from executor.audit.canonical import JsonValue, canonical, escape_strings
from executor.audit.checkpoint import Checkpoint, origin_of, sign_checkpoint, store_checkpoint
from executor.audit.clock import Clock
from executor.audit.errors import JournalClosed, JournalUnavailable, RecordRefused
from executor.audit.privacy import Fingerprints
from executor.audit.reader import file_digest
from executor.audit.resume import Recovered, recover
from executor.audit.scan import Tail
from executor.audit.signer import Signer
from executor.audit.sink import FileSink, Sink, create_locked, open_locked, sync_path
from executor.audit.writer import LineWriter
from executor.version import version

Durability = Literal["process", "disk"]

JOURNAL_NAME = "journal.jsonl"
DIGEST_KEY_NAME = "digest.key"
CHECKPOINT_NAME = "checkpoint"
CHECKPOINT_EVERY = 500
MAX_BODY_BYTES = 8 * 1024 * 1024
CLOSING_RESERVE_BYTES = 16 * 1024
CALL_RESERVE_BYTES = 4 * 1024
# A record of these kinds promises that more will happen, so it may not use what is held back for the end.
_OPENING_KINDS = frozenset({"run.opened", "run.resumed", "sandbox.opened", "call.decided"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """A record that is in the journal: its sequence number, and the hash that the next one names."""

    seq: int
    hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Seal:
    """A closed journal, as a receipt binds it: every record is under the checkpoint, the closing one too."""

    checkpoint: Checkpoint
    head: str
    previous_head: str
    sha256: str
    key: str


class Resumption(NamedTuple):
    """A journal taken up again, and what was found in it."""

    journal: Journal
    recovered: Recovered


class Journal:
    """The one writer of a run's journal. Made by ``create`` or ``resume``; used from one thread.

    Attributes:
        fingerprints: Keyed digests and previews, for what a record says of arguments and output.
        failure: Why decisions are refused, once they are.
        refused_calls: How many decisions could not be recorded.
    """

    def __init__(
        self,
        sink: Sink,
        tail: Tail,
        *,
        directory: Path,
        signer: Signer,
        run_id: str,
        clock: Clock,
        durability: Durability,
        fingerprints: Fingerprints,
    ) -> None:
        self.directory = directory
        self.path = directory / JOURNAL_NAME
        self.run_id = run_id
        self.origin = origin_of(run_id)
        self.durability: Durability = durability
        self.fingerprints = fingerprints
        self.failure: str | None = None
        self.refused_calls = 0
        self._writer = LineWriter(sink, size=tail.size_bytes)
        self._tail = tail
        self._signer = signer
        self._clock = clock
        self._run_json = canonical(run_id).decode()
        self._began_seconds = clock.monotonic()
        self._began_us = tail.elapsed_us
        self._open: set[str] = set()
        self._since_checkpoint = 0
        self._seal: Seal | None = None
        self._closed = False
        self._synced_bytes = 0
        self._syncing = anyio.Lock()

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        signer: Signer,
        run_id: str,
        clock: Clock,
        durability: Durability = "process",
        opened: Mapping[str, JsonValue] | None = None,
        sink: Callable[[int], Sink] = FileSink,
    ) -> Journal:
        """Start a journal with its ``run.opened`` record and a first checkpoint.

        ``opened`` adds to the body of that record: any field of ``record.RunOpened`` but ``journal``.

        Raises:
            JournalExists: There is one in the directory.
            JournalLocked: Another process is just making it.
            JournalUnavailable: The record could not be written, or there is no space to hold back.
        """
        file = sink(create_locked(directory / JOURNAL_NAME))
        try:
            fingerprints = Fingerprints.create(directory / DIGEST_KEY_NAME)
            journal = cls(
                file,
                Tail(),
                directory=directory,
                signer=signer,
                run_id=run_id,
                clock=clock,
                durability=durability,
                fingerprints=fingerprints,
            )
            journal._begin("run.opened", opened or {})
        except BaseException:
            file.close()
            raise
        return journal

    @classmethod
    def resume(
        cls,
        directory: Path,
        *,
        signer: Signer,
        run_id: str,
        clock: Clock,
        durability: Durability = "process",
        details: Mapping[str, JsonValue] | None = None,
        sink: Callable[[int], Sink] = FileSink,
    ) -> Resumption:
        """Take up a journal that a process left behind, after checking all of it and cutting off a torn line.

        Raises:
            JournalLocked: Another process is writing it.
            JournalDamaged: What is there is not what was written under this key; nothing is changed.
            JournalClosed: The run is finished.
            JournalUnavailable: There is no space to go on.
        """
        path = directory / JOURNAL_NAME
        file = sink(open_locked(path))
        try:
            key = signer.verifier(origin_of(run_id))
            recovered = recover(path, run_id=run_id, key=key, checkpoint=directory / CHECKPOINT_NAME)
            if recovered.torn_bytes:
                file.truncate(recovered.tail.size_bytes)
            journal = cls(
                file,
                recovered.tail,
                directory=directory,
                signer=signer,
                run_id=run_id,
                clock=clock,
                durability=durability,
                fingerprints=Fingerprints.load(directory / DIGEST_KEY_NAME),
            )
            journal._open.update(call.call for call in recovered.open_calls)
            journal._begin("run.resumed", {**recovered.noted(), "details": dict(details or {})})
        except BaseException:
            file.close()
            raise
        return Resumption(journal, recovered)

    @property
    def size(self) -> int:
        """How many records there are."""
        return self._tail.tree.size

    @property
    def elapsed_seconds(self) -> float:
        """How long the run has been open, over all its processes."""
        return self._elapsed_us() / 1_000_000

    @property
    def open_calls(self) -> frozenset[str]:
        """Calls that were allowed and have not ended."""
        return frozenset(self._open)

    def append(self, kind: str, body: Mapping[str, JsonValue]) -> Appended:
        """Write one record. It outlives this process on return, and the machine after ``flush``.

        Bodies are documented in ``record``. Text that is not UTF-8 (surrogate escapes) is escaped and the
        record marked.

        Raises:
            JournalUnavailable: It is not in the journal. Of a call that it would have allowed nothing may
            run.
            JournalClosed: The run was closed.
            RecordRefused: The body holds a float or an integer beyond 53 bits, is not JSON, or is too long.
        """
        appended = self._append(kind, body)
        self._since_checkpoint += 1
        if self._since_checkpoint >= CHECKPOINT_EVERY and self.failure is None:
            # The record that led here is in the journal. That no checkpoint follows is kept in ``failure``
            # and refuses the next call.
            with suppress(JournalUnavailable):
                self._note_checkpoint()
        return appended

    async def flush(self) -> None:
        """Return when all that was appended is as durable as the policy says. Waiting callers share a sync.

        Raises:
            JournalUnavailable: The disk did not take it. The journal takes no more records.
        """
        if self.durability == "process":
            return
        wanted = self._tail.size_bytes
        async with self._syncing:
            if self._synced_bytes >= wanted:
                return
            covered = self._tail.size_bytes
            try:
                await to_thread.run_sync(self._writer.sync)
            except JournalUnavailable as error:
                self.failure = str(error)
                raise
            self._synced_bytes = covered

    def checkpoint(self) -> Checkpoint:
        """Sign what the journal holds now, and note that as a record unless the run was closed.

        Raises:
            JournalUnavailable: It could not be noted.
        """
        checkpoint = self._note_checkpoint()
        # The copy beside the journal is a second look, not the record: on a full disk the older one
        # stays, and still holds.
        with suppress(OSError):
            store_checkpoint(checkpoint, self.directory / CHECKPOINT_NAME)
        return checkpoint

    def seal(self, state: Literal["finished", "suspended"], *, reason: str | None = None) -> Seal:
        """Write the closing record and sign everything, it included. Nothing can be appended after it.

        Raises:
            JournalUnavailable: The closing record is not in the journal, which stays incomplete.
        """
        if not self._closed:
            self._append(
                "run.closed", {"state": state, "reason": reason, "refused_calls": self.refused_calls}
            )
        if self._seal is None:
            self._seal = Seal(
                checkpoint=self.checkpoint(),
                head=self._tail.head,
                previous_head=self._tail.previous_head,
                sha256=file_digest(self.path),
                key=self._signer.verifier(self.origin).text,
            )
        return self._seal

    def close(self) -> None:
        """Let go of the file, its lock and what was held back. Unsealed, the journal stays incomplete."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, kind: str, body: Mapping[str, JsonValue]) -> None:
        self._writer.hold(CLOSING_RESERVE_BYTES + CALL_RESERVE_BYTES)
        journal: dict[str, JsonValue] = {
            "origin": self.origin,
            "key": self._signer.verifier(self.origin).text,
            "durability": self.durability,
            "reserve": "fallocate" if self._writer.reserves else "none",
            "software": f"remit {version()}",
        }
        self._append(kind, {**body, "journal": journal})
        self.checkpoint()
        if self.durability == "disk":
            self._writer.sync()
            for path in (self.fingerprints.key_path, self.directory, self.directory.parent):
                sync_path(path)

    def _append(self, kind: str, body: Mapping[str, JsonValue]) -> Appended:
        if self._closed:
            raise JournalClosed(f"{self.path}: the run is closed, a {kind} record cannot follow")
        elapsed_us = self._elapsed_us()
        line = self._line(kind, body, elapsed_us)
        try:
            self._write(line, opening=kind in _OPENING_KINDS)
        except JournalUnavailable:
            self.refused_calls += kind == "call.decided"
            raise
        self._account(kind, body)
        seq = self._tail.add(line[:-1], elapsed_us=elapsed_us)
        return Appended(seq=seq, hash=self._tail.head)

    def _write(self, line: bytes, *, opening: bool) -> None:
        if opening and self.failure is not None:
            raise JournalUnavailable(self.failure)
        try:
            self._writer.write(line, keep=self._held_back() if opening else 0)
        except JournalUnavailable as error:
            self.failure = self.failure or str(error)
            raise

    def _line(self, kind: str, body: Mapping[str, JsonValue], elapsed_us: int) -> bytes:
        """Return a record's canonical bytes; what stands beside the body is plain ASCII in sorted order."""
        mark = b""
        try:
            encoded = canonical(body)
        except RecordRefused:
            encoded = canonical(escape_strings(body))
            mark = b'"escaped":true,'
        tail = self._tail
        moment = self._clock.wall_time()
        if moment.tzinfo is not UTC:
            moment = moment.astimezone(UTC)
        label = moment.isoformat(timespec="microseconds")[:26]
        head = (
            f'"kind":"{kind}","prev":"{tail.head}","run":{self._run_json},'
            f'"seq":{tail.tree.size},"ts":"{label}Z","v":1}}\n'
        )
        if len(encoded) > MAX_BODY_BYTES:
            raise RecordRefused(f"a {kind} record of {len(encoded)} bytes; {MAX_BODY_BYTES} are the most")
        return b'{"body":%b,"elapsed_us":%d,%b%b' % (encoded, elapsed_us, mark, head.encode())

    def _account(self, kind: str, body: Mapping[str, JsonValue]) -> None:
        if kind == "call.decided" and body.get("action") == "allow":
            self._open.add(str(body.get("call")))
        elif kind == "call.ended":
            self._open.discard(str(body.get("call")))
        elif kind == "run.closed":
            self._closed = True

    def _held_back(self) -> int:
        """Return the space for closing records, the end of each running call and of the one now decided."""
        return CLOSING_RESERVE_BYTES + CALL_RESERVE_BYTES * (len(self._open) + 1)

    def _elapsed_us(self) -> int:
        try:
            passed = int((self._clock.monotonic() - self._began_seconds) * 1_000_000)
        except (ValueError, OverflowError):
            passed = 0
        return max(self._tail.elapsed_us, self._began_us + passed)

    def _note_checkpoint(self) -> Checkpoint:
        tree = self._tail.tree
        checkpoint = sign_checkpoint(self._signer, origin=self.origin, size=tree.size, root=tree.root())
        self._since_checkpoint = 0
        if not self._closed:
            noted: dict[str, JsonValue] = {
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "text": checkpoint.text,
            }
            self._append("checkpoint", noted)
        return checkpoint

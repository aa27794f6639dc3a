"""Read a journal line by line and find where it stops being what was written.

A changed line breaks the link of the next one, so a broken link alone does not say which of the two
neighbours is bad. What follows decides: if the later one is itself linked to by its successor (or is the
head that the receipt names), it is as it was written, and the earlier one was changed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from executor.audit.chain import NO_PREVIOUS, Tree
from executor.audit.checkpoint import Checkpoint, origin_of, parse_checkpoint
from executor.audit.errors import KeyRefused
from executor.audit.reader import Record, parse_line
from executor.audit.record import (
    CheckpointNoted,
    JournalPart,
    Part,
    RunClosed,
    RunOpened,
    RunResumed,
    parse_body,
)
from executor.audit.signer import VerifierKey

MAX_PROBLEMS = 20
# What the rest is read by. Other bodies are looked at only when asked for: that doubles the time.
_TELLING = frozenset({"run.opened", "run.resumed", "checkpoint", "verdict", "run.closed"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that is not as it was written.

    ``seq`` names the first bad record (line ``seq + 1``); None when it is about the journal as a whole.
    ``last`` is set when the damage can only be placed between two records.
    """

    code: str
    detail: str
    seq: int | None = None
    last: int | None = None


@dataclass(kw_only=True, slots=True)
class Tail:
    """Where the next record goes on."""

    tree: Tree = field(default_factory=Tree)
    head: str = NO_PREVIOUS
    previous_head: str = NO_PREVIOUS
    size_bytes: int = 0
    elapsed_us: int = 0

    def add(self, line: bytes, *, elapsed_us: int) -> int:
        """Take in a line without its newline; return its sequence number."""
        seq = self.tree.size
        self.tree.append(line)
        self.previous_head = self.head
        self.head = hashlib.sha256(line).hexdigest()
        self.size_bytes += len(line) + 1
        self.elapsed_us = elapsed_us
        return seq


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenCall:
    """A call that was allowed and has no end: it may have run, in part or whole."""

    seq: int
    call: str
    tool: str
    client_call: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchors:
    """What is known of a journal from elsewhere: key, signed checkpoints, hashes of the last two lines."""

    key: VerifierKey | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    head: str | None = None
    previous_head: str | None = None
    sealed_size: int | None = None


class Scanner:
    """Feed it every line in order, then ``finish``; it keeps nothing per line.

    Attributes:
        tail: Where the journal ends, for a writer that goes on.
        signed_size: How many records, from the first, are under a checkpoint whose signature and root hold.
        own_key: The key that the journal names itself.
    """

    def __init__(self, anchors: Anchors, *, every_body: bool = False) -> None:
        self.tail = Tail()
        self.problems: list[Problem] = []
        self.open_calls: dict[str, OpenCall] = {}
        self.run: str | None = None
        self.own_key: VerifierKey | None = None
        self.closed: str | None = None
        self.signed_size = 0
        self._anchors = anchors
        self._every_body = every_body
        self._waiting = sorted(anchors.checkpoints, key=lambda checkpoint: checkpoint.size)
        self._expected = 0
        self._before_head = ""
        self._links_whole = True
        self._follows_bad = False
        self._suspect: int | None = None

    def feed(self, line: bytes) -> Record | None:
        """Take in one line without its newline; return its record if it is one."""
        self._compare_waiting()
        try:
            record = parse_line(line)
            body = (
                parse_body(record.kind, record.body) if self._every_body or record.kind in _TELLING else None
            )
        except ValueError as error:
            self._resolve(None)
            self._bad("record.form", str(error).replace("\n", "; ")[:300], self._expected)
            self._advance(line, self._expected, self.tail.elapsed_us)
            return None
        self._resolve(record)
        if self._linked(record):
            self._content(record, body)
        self._advance(line, record.seq, record.elapsed_us)
        return record

    def finish(self, *, torn_bytes: int = 0) -> None:
        """Say that there are no more lines, and how long an unfinished one was."""
        self._compare_waiting()
        self._resolve(None, at_end=True)
        size = self.tail.tree.size
        if torn_bytes:
            self._report("line.torn", f"{torn_bytes} bytes without a newline at the end", size)
        for checkpoint in self._waiting:
            self._report("journal.short", f"{checkpoint.size} records were signed for, {size} are here", size)
        sealed = self._anchors.sealed_size
        if sealed is not None and size > sealed:
            self._report("journal.long", f"sealed with {sealed} records, {size} are here", sealed)
        self.problems.sort(key=lambda problem: (problem.seq is None, problem.seq))

    def _advance(self, line: bytes, seq: int, elapsed_us: int) -> None:
        self._expected = seq + 1
        self._before_head = self.tail.head
        self.tail.add(line, elapsed_us=elapsed_us)

    def _linked(self, record: Record) -> bool:
        """Tell whether the record stands where it says and follows the one before; note what is wrong."""
        follows_bad, self._follows_bad = self._follows_bad, False
        right_place = record.seq == self._expected
        if record.prev == self.tail.head:
            if right_place:
                return True
            self._report("record.seq", f"says it is record {record.seq}", self._expected)
            self._follows_bad = True
        elif follows_bad and right_place:
            pass
        elif right_place:
            self._suspect = record.seq
            self._links_whole = False
        elif record.seq > self._expected:
            self._report("record.missing", f"record {record.seq} stands in its place", self._expected)
        elif record.prev == self._before_head:
            self._report("record.twice", "two records claim this place", record.seq)
        else:
            self._report(
                "record.order", f"record {record.seq} stands where {self._expected} belongs", record.seq
            )
        return False

    def _resolve(self, record: Record | None, *, at_end: bool = False) -> None:
        """Decide which side of a broken link was changed, now that the line after it is known."""
        suspect, self._suspect = self._suspect, None
        if suspect is None:
            return
        head = self._anchors.head if at_end else record.prev if record else None
        if head is None:
            self._report("record.link", "one of these two was changed", suspect - 1, last=suspect)
        elif head == self.tail.head:
            self._report("record.changed", "the next record was written after another text", suspect - 1)
        else:
            self._report("record.changed", "does not name the record before it", suspect)

    def _content(self, record: Record, body: Part | None) -> None:
        if record.seq == 0 or isinstance(body, RunOpened):
            self._opening(record, body)
        if record.run != self.run:
            self._bad("record.run", f"belongs to run {record.run!r}", record.seq)
        if record.elapsed_us < self.tail.elapsed_us:
            self._bad("record.elapsed", "the run's clock went back", record.seq)
        if self.closed is not None and not (isinstance(body, RunResumed) and self.closed == "suspended"):
            self._bad("record.after_close", "follows the closing record", record.seq)
        self.closed = body.state if isinstance(body, RunClosed) else None
        if record.kind == "call.decided":
            self._decided(record)
        elif record.kind == "call.ended":
            self.open_calls.pop(str(record.body.get("call")), None)
        elif isinstance(body, CheckpointNoted):
            self._checkpoint(record.seq, body)
        elif isinstance(body, RunResumed):
            self._same_key(record.seq, body.journal)

    def _decided(self, record: Record) -> None:
        body = record.body
        if body.get("action") != "allow":
            return
        call, client_call = str(body.get("call")), body.get("client_call")
        self.open_calls[call] = OpenCall(
            seq=record.seq,
            call=call,
            tool=str(body.get("tool")),
            client_call=None if client_call is None else str(client_call),
        )

    def _opening(self, record: Record, body: Part | None) -> None:
        if record.seq != 0 or not isinstance(body, RunOpened):
            self._bad("record.opening", "the first record, and only it, is run.opened", record.seq)
            return
        self.run = record.run
        try:
            self.own_key = VerifierKey.parse(body.journal.key)
        except KeyRefused as error:
            self._bad("key.form", str(error), 0)
        self._same_key(0, body.journal)

    def _same_key(self, seq: int, journal: JournalPart) -> None:
        key = self._anchors.key or self.own_key
        if journal.origin != origin_of(self.run or ""):
            self._bad("record.origin", f"names the origin {journal.origin!r}", seq)
        if key is not None and journal.key != VerifierKey(name=journal.origin, public=key.public).text:
            self._bad("key.other", "was written under another key", seq)

    def _checkpoint(self, seq: int, body: CheckpointNoted) -> None:
        try:
            checkpoint = parse_checkpoint(body.text)
        except ValueError as error:
            self._bad("checkpoint.form", str(error), seq)
            return
        said = (checkpoint.size, checkpoint.root.hex(), checkpoint.origin)
        if said != (body.size, body.root, origin_of(self.run or "")) or body.size != seq:
            self._bad("checkpoint.form", "the signed note says something else than the record", seq)
            return
        self._signed(checkpoint, seq)

    def _signed(self, checkpoint: Checkpoint, seq: int) -> None:
        """Hold a checkpoint against the tree as it is now."""
        key = self._anchors.key or self.own_key
        if key is None or not checkpoint.signed_by(key):
            self._bad("checkpoint.signature", "the signature is not of this journal's key", seq)
        elif self._links_whole and checkpoint.root != self.tail.tree.root():
            self._links_whole = False
            self._report(
                "checkpoint.root",
                "records differ from what was signed",
                self.signed_size,
                last=checkpoint.size - 1,
            )
        elif self._links_whole:
            self.signed_size = max(self.signed_size, checkpoint.size)

    def _compare_waiting(self) -> None:
        """Hold each checkpoint known from elsewhere against the tree when it has reached its size."""
        while self._waiting and self._waiting[0].size <= self.tail.tree.size:
            self._compare(self._waiting.pop(0))

    def _compare(self, checkpoint: Checkpoint) -> None:
        anchors, tail = self._anchors, self.tail
        sealed_here = self._links_whole and checkpoint.size == anchors.sealed_size
        if sealed_here and anchors.previous_head == tail.previous_head and anchors.head != tail.head:
            self._bad("record.changed", "is not the record that was sealed last", checkpoint.size - 1)
            return
        self._signed(checkpoint, checkpoint.size)

    def _bad(self, code: str, detail: str, seq: int) -> None:
        """Report a record that is bad in itself; the link that leaves it says nothing more."""
        self._report(code, detail, seq)
        self._follows_bad = True

    def _report(self, code: str, detail: str, seq: int, *, last: int | None = None) -> None:
        self._links_whole = False
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(code=code, detail=detail, seq=seq, last=last))

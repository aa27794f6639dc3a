"""Check a journal and a receipt without any secret, and say where they stop being what was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from executor.audit.canonical import JsonValue
from executor.audit.checkpoint import Checkpoint, load_checkpoint, origin_of, parse_checkpoint
from executor.audit.errors import KeyRefused
from executor.audit.reader import Record, file_digest, read_lines
from executor.audit.receipt import Receipt, Statement, VerdictPart, read_receipt, subjects
from executor.audit.record import Judged
from executor.audit.scan import Anchors, OpenCall, Problem, Scanner
from executor.audit.signer import VerifierKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What a journal's check found.

    Attributes:
        ok: It is what was written, and all of it.
        intact: Nothing in it was changed, as far as the anchors reach.
        complete: It ends with a closing record.
        anchored: A receipt, checkpoint or key from outside was held against it. Without one, whoever could
            write the file could have replaced it whole under a key of their own.
        signed_size: How many records are under a checkpoint that holds.
        problems: What is wrong, the first bad record first.
    """

    ok: bool
    intact: bool
    complete: bool
    anchored: bool
    records: int
    signed_size: int
    root: str
    sha256: str
    run: str | None
    key: str | None
    open_calls: tuple[OpenCall, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptVerification:
    """What a receipt's check found. Without ``key_pinned`` only the key that it names itself was at hand."""

    ok: bool
    key_pinned: bool
    receipt: Receipt | None
    journal: Verification | None
    problems: tuple[Problem, ...]


def verify_journal(
    path: Path,
    *,
    receipt: Path | None = None,
    key: str | None = None,
    checkpoints: Sequence[Path] = (),
    every_body: bool = False,
) -> Verification:
    """Check a journal from end to end, and against a receipt, a pinned key and kept checkpoints if given.

    With ``every_body`` each record's body is held against its documented form as well, at half the speed.

    Raises:
        OSError: A file cannot be read.
        KeyRefused: ``key`` is not a verifier key.
    """
    pinned = VerifierKey.parse(key) if key is not None else None
    anchors = Anchors(key=pinned)
    problems: tuple[Problem, ...] = ()
    if receipt is not None:
        loaded, problems = _load(receipt, pinned)
        if loaded is not None and not problems:
            anchors = _anchors_of(loaded, pinned)
    kept, unreadable = _load_all(checkpoints)
    anchors = replace(anchors, checkpoints=(*anchors.checkpoints, *kept))
    anchored = receipt is not None or pinned is not None or bool(checkpoints)
    return _verify(path, anchors, (*problems, *unreadable), anchored=anchored, every_body=every_body)


def verify_receipt(path: Path, *, journal: Path | None = None, key: str | None = None) -> ReceiptVerification:
    """Check a receipt's signature, form and checkpoint, and that the journal says the same, if it is given.

    Raises:
        OSError: A file cannot be read.
        KeyRefused: ``key`` is not a verifier key.
    """
    pinned = VerifierKey.parse(key) if key is not None else None
    receipt, problems = _load(path, pinned)
    checked = None
    if journal is not None and receipt is not None and not problems:
        collected = _Said()
        checked = _verify(journal, _anchors_of(receipt, pinned), (), anchored=True, said=collected)
        problems = (*checked.problems, *collected.differences(receipt, checked))
    return ReceiptVerification(
        ok=not problems,
        key_pinned=pinned is not None,
        receipt=receipt,
        journal=checked,
        problems=tuple(problems),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Offence:
    """A record that shows a broken rule. One that binds is in the receipt, or another of the same call is."""

    codes: frozenset[str]
    call: str | None
    binding: bool


class _Said:
    """What the journal itself says on the points that a receipt repeats."""

    def __init__(self) -> None:
        self.remit: str | None = None
        self.offences: dict[int, _Offence] = {}
        self.verdict: tuple[int, Judged] | None = None
        self.actions: Counter[str] = Counter()

    def note(self, record: Record) -> None:
        body = record.body
        if record.kind == "call.decided":
            self.actions[str(body.get("action"))] += 1
            if body.get("action") == "deny":
                self._offence(record, _reason_codes(body), binding=True)
        elif record.kind == "call.ended" and body.get("reasons"):
            self._offence(record, _reason_codes(body), binding=body.get("status") == "denied")
        elif record.kind == "violation":
            # A changed tripwire is told among the verdict's reasons.
            self._offence(record, [str(body.get("code"))], binding=body.get("code") != "tripwire.changed")
        elif record.kind == "verdict":
            self.verdict = (record.seq, Judged.model_validate(body))
        elif record.kind == "run.opened":
            remit = body.get("remit")
            self.remit = None if remit is None else str(remit)

    def differences(self, receipt: Receipt, journal: Verification) -> Iterator[Problem]:
        if receipt.run.id != journal.run:
            yield Problem(
                code="receipt.run", detail=f"is of run {receipt.run.id!r}, the journal of {journal.run!r}"
            )
        if receipt.journal.sha256 != journal.sha256:
            yield Problem(code="receipt.journal", detail="names another file digest than the journal has")
        if self.remit is not None and receipt.remit.digest != self.remit:
            yield Problem(
                code="receipt.remit", detail="names another remit than the journal was opened with", seq=0
            )
        yield from self._untold(receipt)
        if receipt.calls.denied != self.actions["deny"] or receipt.calls.allowed != self.actions["allow"]:
            yield Problem(code="receipt.calls", detail="counts other decisions than the journal")
        if self.verdict is None:
            yield Problem(code="receipt.verdict", detail="the journal holds no verdict")
        elif self.verdict[1].outcome != receipt.verdict.outcome or _codes(self.verdict[1]) != _codes(
            receipt.verdict
        ):
            yield Problem(
                code="receipt.verdict", detail="tells another verdict than the journal", seq=self.verdict[0]
            )

    def _offence(self, record: Record, codes: Sequence[str], *, binding: bool) -> None:
        call = record.body.get("call")
        self.offences[record.seq] = _Offence(
            codes=frozenset(codes), call=None if call is None else str(call), binding=binding
        )

    def _untold(self, receipt: Receipt) -> Iterator[Problem]:
        """Compare both ways: what the receipt lists is in the journal, and what binds there is listed."""
        told: set[int | str] = set()
        for violation in receipt.violations:
            offence = self.offences.get(violation.record)
            if offence is None or violation.code not in offence.codes:
                detail = f"lists {violation.code}, which record {violation.record} does not show"
                yield Problem(code="receipt.violations", detail=detail, seq=violation.record)
            else:
                told |= {violation.record} if offence.call is None else {violation.record, offence.call}
        for seq, offence in self.offences.items():
            if offence.binding and not told & {seq, offence.call}:
                detail = f"leaves out {', '.join(sorted(offence.codes))} of record {seq}"
                yield Problem(code="receipt.violations", detail=detail, seq=seq)


def _verify(
    path: Path,
    anchors: Anchors,
    problems: tuple[Problem, ...],
    *,
    anchored: bool,
    every_body: bool = False,
    said: _Said | None = None,
) -> Verification:
    scanner = Scanner(anchors, every_body=every_body)
    torn = 0
    for line in read_lines(path):
        if not line.endswith(b"\n"):
            torn += len(line)
            continue
        record = scanner.feed(line[:-1])
        if said is not None and record is not None:
            said.note(record)
    scanner.finish(torn_bytes=torn)
    intact = not problems and not scanner.problems
    complete = scanner.closed is not None and not torn
    unclosed = (
        ()
        if complete
        else (Problem(code="journal.incomplete", detail="there is no closing record at the end"),)
    )
    tail = scanner.tail
    return Verification(
        ok=intact and complete,
        intact=intact,
        complete=complete,
        anchored=anchored,
        records=tail.tree.size,
        signed_size=scanner.signed_size,
        root=tail.tree.root().hex(),
        sha256=file_digest(path),
        run=scanner.run,
        key=scanner.own_key.text if scanner.own_key else None,
        open_calls=tuple(scanner.open_calls.values()),
        problems=(*scanner.problems, *problems, *unclosed),
    )


def _load(path: Path, pinned: VerifierKey | None) -> tuple[Receipt | None, tuple[Problem, ...]]:
    """Read a receipt and check what can be checked without its journal."""
    try:
        envelope, statement = read_receipt(path)
    except ValueError as error:
        return None, (Problem(code="receipt.form", detail=str(error)),)
    receipt = statement.predicate
    try:
        own = VerifierKey.parse(receipt.journal.key)
        checkpoint = parse_checkpoint(receipt.journal.checkpoint)
    except (KeyRefused, ValueError) as error:
        return receipt, (Problem(code="receipt.form", detail=str(error)),)
    if pinned is not None and pinned.public != own.public:
        return receipt, (
            Problem(code="receipt.key", detail="was signed under another key than the pinned one"),
        )
    if not envelope.signed_by(own):
        return receipt, (
            Problem(code="receipt.signature", detail="the signature is not of the key that it names"),
        )
    said = (receipt.journal.origin, receipt.journal.size, receipt.journal.root)
    held = (checkpoint.origin, checkpoint.size, checkpoint.root.hex())
    if said != held or checkpoint.origin != origin_of(receipt.run.id) or not checkpoint.signed_by(own):
        return receipt, (
            Problem(code="receipt.checkpoint", detail="its checkpoint is not signed for what it says"),
        )
    return receipt, tuple(_subject_problems(statement))


def _subject_problems(statement: Statement) -> Iterator[Problem]:
    expected = subjects(statement.predicate)
    if [subject.model_dump() for subject in statement.subject] != expected:
        yield Problem(
            code="receipt.subjects",
            detail="its subjects are not the journal and the changed files that it lists",
        )


def _anchors_of(receipt: Receipt, pinned: VerifierKey | None) -> Anchors:
    seal = receipt.journal
    return Anchors(
        key=pinned or VerifierKey.parse(seal.key),
        checkpoints=(parse_checkpoint(seal.checkpoint),),
        head=seal.head,
        previous_head=seal.previous_head,
        sealed_size=seal.size,
    )


def _load_all(paths: Sequence[Path]) -> tuple[tuple[Checkpoint, ...], tuple[Problem, ...]]:
    found: list[Checkpoint] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            checkpoint = load_checkpoint(path)
        except ValueError as error:
            problems.append(Problem(code="checkpoint.form", detail=f"{path}: {error}"))
            continue
        if any(checkpoint.contradicts(other) for other in found):
            problems.append(
                Problem(
                    code="checkpoint.conflict", detail=f"{path}: another root was signed for the same size"
                )
            )
        found.append(checkpoint)
    return tuple(found), tuple(problems)


def _reason_codes(body: Mapping[str, JsonValue]) -> list[str]:
    reasons = body.get("reasons")
    listed = reasons if isinstance(reasons, list) else []
    return [str(reason.get("code")) for reason in listed if isinstance(reason, Mapping)]


def _codes(verdict: Judged | VerdictPart) -> list[str]:
    return sorted(reason.code for reason in verdict.reasons)

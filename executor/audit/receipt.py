"""The receipt: a signed in-toto statement of what a run was allowed, what it did, and what came of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictInt, ValidationError

from executor.audit.canonical import escape_strings
from executor.audit.dsse import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, Envelope, parse_envelope, sign_payload
from executor.audit.journal import JOURNAL_NAME, Seal
from executor.audit.record import ChangePart, ControlPart, GrowthPart, Outcome, Part, VerdictReasonPart
from executor.audit.signer import Signer

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
# A name, not an address: nothing is fetched from it.
PREDICATE_TYPE = "https://remit.dev/receipt/v1"
RECEIPT_VERSION = 1


class RunPart(Part):
    """Which run, and when."""

    id: str = Field(description="The run's id.")
    task: str = Field(description="The task's id in the remit.")
    task_class: str | None = Field(default=None, description="The task's class in the remit.")
    source: str = Field(default="library", description="The door that calls came through.")
    enforced_by: Literal["broker", "host"] = Field(
        default="broker",
        description="Who ran the tools: remit in a sandbox, or the agent's host after asking remit.",
    )
    started: str = Field(description="Time of day in UTC.")
    ended: str = Field(description="Time of day in UTC.")
    elapsed_us: StrictInt = Field(description="Microseconds open, by a clock that never goes back.")
    resumed: StrictInt = Field(default=0, description="How often another process took it up again.")


class RemitPart(Part):
    """Under which contract."""

    digest: str = Field(description="`sha256:` digest of the canonical effective remit.")
    document: dict[str, JsonValue] | None = Field(
        default=None, description="The effective remit itself, when it was put in."
    )


class SandboxPart(Part):
    """What the calls ran in, and how sure each control is."""

    id: str = Field(description="Its name.")
    backend: str = Field(description="What it runs on.")
    backend_version: str = Field(description="Version of that.")
    guest_digest: str = Field(description="Digest of the program inside that carries calls out.")
    strategy: Literal["overlay", "copy"] = Field(description="How the workspace was layered.")
    details: dict[str, str] = Field(default={}, description="Further facts of the backend.")
    controls: tuple[ControlPart, ...] = Field(
        default=(),
        description="Each control: `observed` to hold, `configured` only, `unknown` or `missing`.",
    )
    lifetime: Literal["task", "call"] | None = Field(
        default=None, description="Whether all calls ran in one sandbox or each in a fresh one."
    )
    opened: StrictInt | None = Field(
        default=None,
        description="How many were opened for the run and its calls; this is the last of them.",
    )


class BudgetPart(Part):
    """What was declared and what was used, in the units of the remit reference."""

    declared: dict[str, JsonValue] = Field(default={}, description="The maxima.")
    used: dict[str, JsonValue] = Field(default={}, description="What was spent.")
    remaining: dict[str, JsonValue] = Field(default={}, description="What was left.")


class CallsPart(Part):
    """How many calls there were, by what became of them."""

    decided: StrictInt = Field(default=0, description="Decisions, of any kind.")
    allowed: StrictInt = Field(default=0, description="Allowed.")
    denied: StrictInt = Field(default=0, description="Denied.")
    ended: StrictInt = Field(default=0, description="Allowed and brought to an end.")
    interrupted: tuple[StrictInt, ...] = Field(
        default=(), description="Records of allowed calls that have no end."
    )
    refused: StrictInt = Field(default=0, description="Refused because they could not be recorded.")


class ViolationPart(Part):
    """One violation, and the record that shows it."""

    code: str = Field(description="Reason code.")
    detail: str = Field(description="What was found.")
    record: StrictInt = Field(description="Sequence number of its record in the journal.")
    call: str | None = Field(default=None, description="The call that did it.")


class GrowthFound(GrowthPart):
    """A change outside the write scope, and the record that shows it."""

    record: StrictInt | None = Field(
        default=None, description="Sequence number of its record in the journal."
    )


class ChangesPart(Part):
    """What the run changed."""

    manifest: str | None = Field(default=None, description="`sha256:` digest of the exported manifest.")
    files: tuple[ChangePart, ...] = Field(default=(), description="Every path that differs, sorted.")
    growth: tuple[GrowthFound, ...] = Field(default=(), description="Those outside the write scope.")
    applied: StrictBool | None = Field(
        default=None, description="Whether they were put into the user's tree; null: not known yet."
    )


class CheckPart(Part):
    """One check, judged by the exit status that the host saw."""

    name: str = Field(description="Its name.")
    argv: tuple[str, ...] = Field(description="The exact command.")
    status: Literal["passed", "failed", "not_run"] = Field(description="How it went.")
    exit_code: StrictInt | None = Field(default=None, description="The exit status.")
    detail: str = Field(default="", description="Why not, or how it failed.")
    record: StrictInt | None = Field(
        default=None, description="Sequence number of its record in the journal."
    )


class RoutePart(Part):
    """Who must have answered, and what is known of who did."""

    declared: dict[str, JsonValue] | None = Field(
        default=None, description="The route of the remit; null when no model is in play."
    )
    evidence: tuple[dict[str, JsonValue], ...] = Field(
        default=(), description="Metadata that was seen, per turn."
    )


class VerdictPart(Part):
    """The verdict, and what it rests on."""

    outcome: Outcome = Field(description="In one word.")
    reasons: tuple[VerdictReasonPart, ...] = Field(
        default=(), description="Why, each with the records that show it."
    )


class JournalSealPart(Part):
    """What binds the receipt to one exact journal."""

    origin: str = Field(description="First line of its checkpoints.")
    key: str = Field(description="C2SP verifier key of its checkpoints; the same key signs the receipt.")
    size: StrictInt = Field(description="How many records.")
    root: str = Field(description="Hex RFC 6962 root over them.")
    head: str = Field(description="Hex SHA-256 of the last line.")
    previous_head: str = Field(description="Hex SHA-256 of the line before it.")
    sha256: str = Field(description="Hex SHA-256 of the file.")
    checkpoint: str = Field(description="The signed checkpoint over all of it.")


class Receipt(Part):
    """The predicate of the statement."""

    version: Literal[1] = Field(default=1, description="Version of this form.")
    generator: str = Field(default="remit", description="Name and version of the program that made it.")
    escaped: StrictBool = Field(
        default=False,
        description="Whether every string is escaped, because one held bytes that are not UTF-8.",
    )
    run: RunPart = Field(description=RunPart.__doc__)
    remit: RemitPart = Field(description=RemitPart.__doc__)
    sandbox: SandboxPart | None = Field(
        default=None, description="What the calls ran in; null when no sandbox came up."
    )
    budget: BudgetPart = Field(default=BudgetPart(), description=BudgetPart.__doc__)
    calls: CallsPart = Field(default=CallsPart(), description=CallsPart.__doc__)
    violations: tuple[ViolationPart, ...] = Field(default=(), description="In order.")
    changes: ChangesPart = Field(default=ChangesPart(), description=ChangesPart.__doc__)
    checks: tuple[CheckPart, ...] = Field(default=(), description="In order.")
    route: RoutePart = Field(default=RoutePart(), description=RoutePart.__doc__)
    verdict: VerdictPart = Field(description=VerdictPart.__doc__)
    journal: JournalSealPart = Field(description=JournalSealPart.__doc__)


class Subject(BaseModel):
    """A thing that the statement is about, by its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="A path relative to the workspace, or the journal's file name.")
    digest: dict[str, str] = Field(description="Algorithm to hex digest.")


class Statement(BaseModel):
    """An in-toto Statement v1 that carries a receipt."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    type: Annotated[
        Literal["https://in-toto.io/Statement/v1"], Field(alias="_type", description="Form of the statement.")
    ]
    subject: tuple[Subject, ...] = Field(
        description="The journal, then each added or modified regular file.", min_length=1
    )
    predicate_type: Annotated[
        Literal["https://remit.dev/receipt/v1"],
        Field(alias="predicateType", description="Form of the predicate: a name."),
    ]
    predicate: Receipt = Field(description="The receipt.")


def journal_part(seal: Seal) -> JournalSealPart:
    """Return what a receipt says of the journal it seals."""
    return JournalSealPart(
        origin=seal.checkpoint.origin,
        key=seal.key,
        size=seal.checkpoint.size,
        root=seal.checkpoint.root.hex(),
        head=seal.head,
        previous_head=seal.previous_head,
        sha256=seal.sha256,
        checkpoint=seal.checkpoint.text,
    )


def build_statement(
    *,
    seal: Seal,
    run: object,
    remit: object,
    verdict: object,
    sandbox: object = None,
    budget: object = None,
    calls: object = None,
    violations: Sequence[object] = (),
    changes: object = None,
    checks: Sequence[object] = (),
    route: object = None,
    generator: str = "remit",
) -> dict[str, Any]:
    """Return the statement of a run as a JSON object.

    Each part is the model of that name, a mapping, or a dataclass with the same fields (a verdict of
    budgets, a change of sandboxes). Text that is not UTF-8 is escaped throughout, and ``escaped`` says so.

    Raises:
        ValueError: A part does not fit.
    """
    parts: dict[str, object] = {
        "generator": generator,
        "run": run,
        "remit": remit,
        "sandbox": sandbox,
        "budget": budget or BudgetPart(),
        "calls": calls or CallsPart(),
        "violations": violations,
        "changes": changes or ChangesPart(),
        "checks": checks,
        "route": route or RoutePart(),
        "verdict": verdict,
        "journal": journal_part(seal),
    }
    receipt = _receipt(plain(parts))
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects(receipt),
        "predicateType": PREDICATE_TYPE,
        "predicate": receipt.model_dump(mode="json"),
    }


def sign(statement: Mapping[str, Any], signer: Signer) -> dict[str, object]:
    """Return the DSSE envelope of a statement.

    Raises:
        ValueError: The statement is not a receipt, or not JSON.
    """
    Statement.model_validate(statement)
    text = json.dumps(statement, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sign_payload(text.encode(), signer)


def write_receipt(envelope: Mapping[str, object], path: Path) -> None:
    """Put an envelope in a file, whole or not at all, and on the disk before returning.

    Raises:
        OSError: It could not be written.
    """
    aside = path.with_name(f".{path.name}.new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(json.dumps(envelope, sort_keys=True, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        os.unlink(aside)
        raise


def read_receipt(path: Path) -> tuple[Envelope, Statement]:
    """Read a receipt file. Signatures are not checked here.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a receipt.
    """
    with path.open("rb") as file:
        envelope = parse_envelope(file.read(MAX_ENVELOPE_BYTES))
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ValueError(f"the payload type is {envelope.payload_type!r}, not {PAYLOAD_TYPE!r}")
    try:
        return envelope, Statement.model_validate_json(envelope.bytes)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"not a receipt: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def subjects(receipt: Receipt) -> list[dict[str, Any]]:
    """Return what a receipt is about: the journal, then each regular file that was added or modified."""
    files = [change for change in receipt.changes.files if change.sha256 and change.change != "deleted"]
    journal = {"name": JOURNAL_NAME, "digest": {"sha256": receipt.journal.sha256}}
    return [journal, *({"name": change.path, "digest": {"sha256": change.sha256}} for change in files)]


def plain(value: object) -> Any:  # noqa: ANN401 (the edge where objects become JSON)
    """Turn models and dataclasses into mappings and sequences of JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(member) for member in value]
    return value


def _receipt(parts: dict[str, Any]) -> Receipt:
    try:
        json.dumps(parts, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        parts = {**cast("dict[str, Any]", escape_strings(parts)), "escaped": True}
    return Receipt.model_validate(parts)

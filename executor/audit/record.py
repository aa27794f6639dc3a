"""What a journal record holds: the envelope that every record has, and one body for each kind.

The writer puts plain mappings into the journal; these models say what they must be. They are used where
records are read and verified, and docs/journal.md is checked against them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictInt, TypeAdapter

FORMAT_VERSION = 1

Kind = Literal[
    "run.opened",
    "run.resumed",
    "sandbox.opened",
    "call.decided",
    "call.ended",
    "call.repeated",
    "violation",
    "route.noted",
    "workspace.changes",
    "check.ended",
    "checkpoint",
    "verdict",
    "run.closed",
]
Outcome = Literal["pass", "mixed", "fail", "unproven"]


class Part(BaseModel):
    """A piece of a record or receipt: exact fields, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class ReasonPart(Part):
    """One reason code with what it means in this case."""

    code: str = Field(description="Reason code, as in docs/reasons.md.")
    detail: str = Field(description="What was found, in words and values.")


class VerdictReasonPart(ReasonPart):
    """A reason with the records that it rests on."""

    records: tuple[StrictInt, ...] = Field(description="Sequence numbers of the records that show it.")


class PathPart(Part):
    """One path that a call declared to use, as the model gave it."""

    path: str = Field(description="The path, not normalised.")
    access: Literal["read", "write"] = Field(description="What for.")


class ArgumentsPart(Part):
    """A call's arguments, without the arguments."""

    digest: str = Field(
        description="`hmac-sha256:` and 64 hex digits, keyed with the journal's own digest key."
    )
    preview: str = Field(
        description="The arguments as JSON with what looks like a secret taken out, cut to a bound."
    )
    truncated: StrictBool = Field(description="Whether the preview was cut.")


class OutputPart(Part):
    """What a command or file gave back, without the bytes."""

    bytes: StrictInt = Field(description="How many bytes there were.")
    digest: str | None = Field(default=None, description="`hmac-sha256:` and 64 hex digits over the bytes.")
    truncated: StrictBool = Field(default=False, description="Whether the model got less than there was.")


class CostPart(Part):
    """What a call reserves in the budget when it is decided."""

    tool: str = Field(description="The tool whose count goes down.")
    written_bytes: StrictInt = Field(default=0, description="Bytes reserved for writing.")


class EffectsPart(Part):
    """What a call said it would touch, before anything ran."""

    paths: tuple[PathPart, ...] = Field(default=(), description="Paths with the access asked for.")
    written_bytes: StrictInt = Field(default=0, description="Bytes it would write.")
    runs_command: StrictBool = Field(
        default=False, description="Whether it starts a command, whose effects cannot be known."
    )


class ApprovalPart(Part):
    """Who said yes or no to a call that needed it, bound to this very call."""

    answer: Literal["granted", "refused", "expired"] = Field(description="What came back.")
    by: str | None = Field(default=None, description="Who answered, as far as the channel can say.")
    channel: str | None = Field(default=None, description="How the answer came.")
    digest: str | None = Field(default=None, description="Digest of the call that was shown to the approver.")


class ControlPart(Part):
    """One isolation control, as asked for and as seen to hold."""

    name: str = Field(description="The control.")
    configured: str = Field(description="What was asked for.")
    observed: str | None = Field(default=None, description="What was seen in the live sandbox.")
    state: Literal["observed", "configured", "unknown", "missing"] = Field(description="How sure it is.")
    required: StrictBool = Field(default=True, description="Whether the remit cannot do without it.")


class ChangePart(Part):
    """One path that differs from the tree the run started from."""

    path: str = Field(description="Relative to the workspace.")
    change: Literal["added", "modified", "deleted"] = Field(description="What happened to it.")
    kind: Literal["file", "directory", "symlink", "other"] = Field(
        description="What it is now (or was, when deleted)."
    )
    mode: StrictInt | None = Field(default=None, description="Permission bits now.")
    size: StrictInt | None = Field(default=None, description="Bytes now.")
    sha256: str | None = Field(default=None, description="Hex SHA-256 of a regular file's content now.")
    target: str | None = Field(default=None, description="Where a symbolic link leads.")
    before_sha256: str | None = Field(default=None, description="Hex SHA-256 of the content before.")
    before_kind: Literal["file", "directory", "symlink", "other"] | None = Field(
        default=None, description="What it was before."
    )
    before_mode: StrictInt | None = Field(default=None, description="Permission bits before.")


class GrowthPart(Part):
    """A change outside the write scope."""

    path: str = Field(description="Relative to the workspace.")
    change: Literal["added", "modified", "deleted"] = Field(description="What happened to it.")
    code: str = Field(description="Reason code.")


class JournalPart(Part):
    """What a journal says of itself in its first record."""

    origin: str = Field(description="First line of every checkpoint of this journal.")
    key: str = Field(description="C2SP verifier key that its checkpoints are signed with.")
    durability: Literal["process", "disk"] = Field(description="What a written record outlives.")
    reserve: Literal["fallocate", "none"] = Field(description="How space for closing records is held back.")
    software: str = Field(description="Name and version of the writer.")


class RunOpened(Part):
    """The first record: which journal, which key, which contract."""

    journal: JournalPart = Field(description="The journal itself.")
    remit: str | None = Field(default=None, description="`sha256:` digest of the effective remit.")
    task: str | None = Field(default=None, description="The task's id.")
    task_class: str | None = Field(default=None, description="The task's class.")
    source: str | None = Field(default=None, description="The door that calls come through.")
    workspace: str | None = Field(default=None, description="The user's tree.")
    budget: dict[str, JsonValue] | None = Field(default=None, description="The declared maxima.")
    route: dict[str, JsonValue] | None = Field(default=None, description="Who must have answered.")
    details: dict[str, JsonValue] = Field(default={}, description="Anything else worth keeping.")


class RunResumed(Part):
    """A later process took the journal up again."""

    journal: JournalPart = Field(description="The journal itself, as in `run.opened`.")
    records: StrictInt = Field(description="How many records were found and checked.")
    torn_bytes: StrictInt = Field(
        description="Length of an unfinished last line that was cut off; 0 when there was none."
    )
    torn_sha256: str | None = Field(description="Hex SHA-256 of what was cut off.")
    open_calls: tuple[str, ...] = Field(description="Calls that were allowed and never ended.")
    details: dict[str, JsonValue] = Field(default={}, description="Anything else worth keeping.")


class SandboxOpened(Part):
    """A sandbox is up: what it is made of and what isolates it."""

    id: str = Field(description="Its name.")
    backend: str = Field(description="What it runs on.")
    backend_version: str = Field(description="Version of that.")
    guest_digest: str = Field(description="Digest of the program that carries calls out.")
    strategy: Literal["overlay", "copy"] = Field(description="How the workspace is layered.")
    details: dict[str, str] = Field(default={}, description="Further facts of the backend.")
    controls: tuple[ControlPart, ...] = Field(
        description="Every control; with `same_as` those alone that were seen to be otherwise."
    )
    same_as: StrictInt | None = Field(
        default=None,
        description="Number of the record of an earlier sandbox: details and controls that are not told here "
        "were seen in this one to be the same.",
    )


class CallDecided(Part):
    """A call was judged. Written before anything runs."""

    call: str = Field(description="Our id of the call.")
    client_call: str | None = Field(default=None, description="The client's id of the call.")
    source: str = Field(description="The door that it came through.")
    tool: str = Field(description="The tool asked for.")
    arguments: ArgumentsPart = Field(description="What it was asked with.")
    action: Literal["allow", "deny", "ask"] = Field(
        description="The decision; `ask` is followed by another for the same call."
    )
    reasons: tuple[ReasonPart, ...] = Field(default=(), description="Every objection, not only the first.")
    cost: CostPart | None = Field(default=None, description="What an allowed call reserves.")
    effects: EffectsPart | None = Field(default=None, description="What it declared.")
    approval: ApprovalPart | None = Field(default=None, description="The answer to an `ask`.")


class CallEnded(Part):
    """An allowed call is over: what it cost and what it did."""

    call: str = Field(description="Our id of the call.")
    status: Literal["ok", "denied", "error", "limit"] = Field(description="As the model was told.")
    reasons: tuple[ReasonPart, ...] = Field(default=(), description="Why, when not `ok`.")
    limit: str | None = Field(default=None, description="The limit that stopped it.")
    exit_code: StrictInt | None = Field(default=None, description="A command's own exit status.")
    settled: Literal["charged", "released"] = Field(
        default="charged", description="Whether the budget kept the reservation."
    )
    output: OutputPart | None = Field(default=None, description="What it gave back.")
    output_bytes: StrictInt = Field(default=0, description="Bytes of output that were charged to the budget.")
    written_bytes: StrictInt = Field(default=0, description="Bytes written that were charged to the budget.")
    elapsed_us: StrictInt = Field(default=0, description="Microseconds from decision to end.")
    changed: tuple[str, ...] = Field(
        default=(), description="Paths seen to have changed, as far as they were looked at."
    )
    details: dict[str, JsonValue] = Field(default={}, description="Further observations.")


class CallRepeated(Part):
    """A client issued a call again under the same id and got the answer that it had; nothing ran."""

    call: str = Field(description="Our id of the call that was answered before.")
    client_call: str = Field(description="The client's id of the call.")
    source: str = Field(description="The door that it came through.")
    tool: str = Field(description="The tool asked for.")
    arguments: ArgumentsPart = Field(description="What it was asked with.")


class Violated(Part):
    """A rule was broken, or the attempt was made."""

    code: str = Field(description="Reason code.")
    severity: Literal["info", "low", "medium", "high", "critical"] = Field(
        default="medium", description="How bad."
    )
    detail: str = Field(description="What was found, in words and values.")
    call: str | None = Field(default=None, description="The call that did it.")
    record: StrictInt | None = Field(
        default=None, description="Sequence number of the record where it shows."
    )
    path: str | None = Field(default=None, description="The path it is about.")


class RouteNoted(Part):
    """Metadata on which model answered. A model's own word is never this."""

    turn: StrictInt = Field(description="Which answer of the model, from 0.")
    tier: StrictInt = Field(description="How good the evidence is, 0 (none) to 4.")
    source: str = Field(description="Where it was read.")
    requested_model: str | None = Field(default=None, description="The model asked for.")
    served_provider: str | None = Field(default=None, description="The provider that answered.")
    served_model: str | None = Field(default=None, description="The model that answered.")
    fallback: StrictBool = Field(default=False, description="Whether it stood in for another.")


class WorkspaceChanged(Part):
    """What the run changed in the workspace, seen after the sandbox was closed."""

    strategy: Literal["overlay", "copy"] | None = Field(default=None, description="How it was found.")
    manifest: str | None = Field(default=None, description="`sha256:` digest of the exported manifest.")
    added: StrictInt = Field(default=0, description="Paths that are new.")
    modified: StrictInt = Field(default=0, description="Paths that differ.")
    deleted: StrictInt = Field(default=0, description="Paths that are gone.")
    changes: tuple[ChangePart, ...] = Field(default=(), description="The changes, or the first of them.")
    truncated: StrictBool = Field(
        default=False, description="Whether there are more than listed; the manifest has them all."
    )
    growth: tuple[GrowthPart, ...] = Field(default=(), description="Those outside the write scope.")
    details: dict[str, JsonValue] = Field(default={}, description="Further observations.")


class CheckEnded(Part):
    """A check ran, or could not, in a fresh sandbox over the result."""

    name: str = Field(description="Its name in the remit.")
    argv: tuple[str, ...] = Field(description="The exact command.")
    status: Literal["passed", "failed", "not_run"] = Field(
        description="By the exit status that the host saw."
    )
    exit_code: StrictInt | None = Field(default=None, description="That exit status.")
    detail: str = Field(default="", description="Why it was not run, or how it failed.")
    elapsed_us: StrictInt = Field(default=0, description="How long it took.")
    output: OutputPart | None = Field(default=None, description="What it printed.")


class CheckpointNoted(Part):
    """The key signed what the journal held before this record."""

    size: StrictInt = Field(description="How many records; always this record's own sequence number.")
    root: str = Field(description="Hex RFC 6962 root over them.")
    text: str = Field(description="The signed note.")


class Judged(Part):
    """The verdict."""

    outcome: Outcome = Field(description="The verdict in one word.")
    reasons: tuple[VerdictReasonPart, ...] = Field(
        default=(), description="Why, with the records it rests on."
    )


class RunClosed(Part):
    """The last record: nothing was cut off after it."""

    state: Literal["finished", "suspended"] = Field(
        description="`suspended` can be taken up again, `finished` cannot."
    )
    reason: str | None = Field(default=None, description="Why it ended here.")
    refused_calls: StrictInt = Field(
        default=0, description="Calls that were refused because they could not be recorded."
    )


BODIES: dict[Kind, type[Part]] = {
    "run.opened": RunOpened,
    "run.resumed": RunResumed,
    "sandbox.opened": SandboxOpened,
    "call.decided": CallDecided,
    "call.ended": CallEnded,
    "call.repeated": CallRepeated,
    "violation": Violated,
    "route.noted": RouteNoted,
    "workspace.changes": WorkspaceChanged,
    "check.ended": CheckEnded,
    "checkpoint": CheckpointNoted,
    "verdict": Judged,
    "run.closed": RunClosed,
}


class Envelope(Part):
    """What stands around every body. One line of canonical JSON (RFC 8785) is one record."""

    v: Literal[1] = Field(description="Version of the format.")
    seq: Annotated[StrictInt, Field(ge=0)] = Field(description="Place in the journal, from 0.")
    run: str = Field(description="The run's id.")
    ts: str = Field(
        description="Time of day in UTC, a label only.", pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"
    )
    elapsed_us: Annotated[StrictInt, Field(ge=0)] = Field(
        description="Microseconds that the run has been open, by a clock that never goes back."
    )
    kind: Kind = Field(description="Which body.")
    body: dict[str, JsonValue] = Field(description="See the kinds below.")
    prev: str = Field(
        description="Hex SHA-256 of the line before, without its newline; 64 zeros in the first."
    )
    escaped: Literal[True] | None = Field(
        default=None,
        description="There only when every string of the body is escaped: one held bytes that are not UTF-8.",
    )


_BODY_ADAPTERS: dict[str, TypeAdapter[Part]] = {kind: TypeAdapter(model) for kind, model in BODIES.items()}


def parse_body(kind: str, body: object) -> Part:
    """Read a body as the model of its kind.

    Raises:
        ValueError: The kind is unknown, or the body is not as documented.
    """
    adapter = _BODY_ADAPTERS.get(kind)
    if adapter is None:
        raise ValueError(f"unknown kind {kind[:80]!r}")
    return adapter.validate_python(body)

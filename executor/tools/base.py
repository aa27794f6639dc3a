"""What a tool is: arguments in, an action that says what it would touch before it does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from budgets.call import Effects, JsonValue
from budgets.reasons import Reason
from budgets.scope import Scope
from budgets.spelling import spelled
from sandboxes.base import FileProblem, LimitName, Sandbox

PerformedStatus = Literal["ok", "denied", "error", "limit"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """All that an allowed action may use.

    Attributes:
        timeout_seconds: What is left of the run's wall time.
        max_output_bytes: How much of a command's output is kept.
        output_left_bytes: How much output the model can still be given.
        written_left_bytes: How much more may be written than was declared.
    """

    sandbox: Sandbox
    scope: Scope
    timeout_seconds: float
    max_output_bytes: int
    output_left_bytes: int
    written_left_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Performed:
    """How an allowed action went.

    Attributes:
        denied: Only for what could not be known before: a link on the path that leads out of the workspace,
            and what a command was seen to have changed.
        ran: Of a denial: it was carried out and its effects were thrown away, so it stays charged.
        output: The tool's bulk text, as bytes; what names it is ``Tool.text_field``.
        result: The tool's small fields, by the names that agents know.
        observed: Digests and sizes for the journal.
    """

    status: PerformedStatus = "ok"
    ran: bool = False
    reasons: tuple[Reason, ...] = ()
    output: bytes = b""
    truncated: bool = False
    exit_code: int | None = None
    limit: LimitName | None = None
    written_bytes: int = 0
    result: Mapping[str, JsonValue] = field(default_factory=dict)
    observed: Mapping[str, JsonValue] = field(default_factory=dict)


class Action(Protocol):
    """One call, understood: pure until ``perform``."""

    def effects(self) -> Effects:
        """Name every path it would touch, whether it is there or not."""
        ...

    async def perform(self, bench: Bench) -> Performed:
        """Do it. Only called when every one of its effects was allowed.

        Raises:
            SandboxError: The machinery failed.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A name that a model can call.

    Attributes:
        parse: Turns arguments into an action, or says why they make none.
        text_field: What agents call the field that holds the outcome's ``output``.
        runs_command: Whether it starts processes in the sandbox.
        deadline_seconds: When the broker gives the sandbox up, should its own deadline not have held.
        input_schema: JSON Schema of the arguments.
    """

    name: str
    description: str
    input_schema: Mapping[str, JsonValue]
    parse: Callable[[Mapping[str, JsonValue]], Action | Reason]
    text_field: str
    runs_command: bool = False
    deadline_seconds: float = 120.0


def relative(bench: Bench, path: str) -> str:
    """Give the path below the workspace that an allowed ``path`` names.

    Raises:
        LookupError: The path was never decided on.
    """
    normal = bench.scope.normalise(path)
    if isinstance(normal, str):
        return normal
    raise LookupError(f"{path!r} was not decided on: {normal.detail}")


async def objection(bench: Bench, path: str, *, directory: bool) -> Performed | None:
    """Tell why a command cannot be pointed at a path: nothing is there, or a link is on the way."""
    if path == ".":
        return None
    found = await bench.sandbox.list_directory(path, max_entries=1)
    if isinstance(found, FileProblem) and found.kind == "not_directory" and not directory:
        file = await bench.sandbox.read_file(path, max_bytes=0)
        return refused(file) if isinstance(file, FileProblem) else None
    return refused(found) if isinstance(found, FileProblem) else None


def refused(problem: FileProblem) -> Performed:
    """Tell a file operation that could not be done; a link that leads out of the workspace is a denial."""
    if problem.kind == "outside" or (problem.kind == "symlink" and problem.target is None):
        return Performed(status="denied", reasons=(Reason(code="scope.link", detail=_told(problem)),))
    if problem.kind == "no_space":
        return Performed(
            status="limit",
            limit="disk",
            reasons=(Reason(code="limit.disk", detail=_told(problem)),),
        )
    code = "arguments.invalid" if problem.kind == "invalid_path" else f"file.{problem.kind}"
    return Performed(status="error", reasons=(Reason(code=code, detail=_told(problem)),))


def failed(code: str, detail: str, **observed: JsonValue) -> Performed:
    """Tell an action that was allowed and could not be done."""
    return Performed(status="error", reasons=(Reason(code=code, detail=detail),), observed=observed)


def shown(path: str) -> str:
    """Make a path fit for a sentence: printable, one line, bounded."""
    return spelled(path)


def _told(problem: FileProblem) -> str:
    if problem.kind == "symlink" and problem.target is not None:
        return f"{shown(problem.path)}: a link to {shown(problem.target)}, which can be named itself"
    return f"{shown(problem.path)}: {problem.detail}"

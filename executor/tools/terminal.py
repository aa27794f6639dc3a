"""terminal: one shell command, run to its end in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from budgets.call import Effects, JsonValue, PathUse
from budgets.reasons import Reason
from executor.tools.arguments import Argument, Arguments
from executor.tools.base import Action, Bench, Performed, Tool, objection, relative
from sandboxes.base import ExecRequest, ExecResult

_MAX_COMMAND_BYTES: Final = 100_000
_TIMED_OUT: Final = 124
_SIGNAL_BASE: Final = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCommand:
    """A shell command."""

    command: str
    timeout_seconds: float
    workdir: str | None

    def effects(self) -> Effects:
        """Say that a command runs, and where; what it touches can only be observed."""
        paths = () if self.workdir is None else (PathUse(path=self.workdir, access="read"),)
        return Effects(paths=paths, runs_command=True)

    async def perform(self, bench: Bench) -> Performed:
        """Run it; its own exit status is no error."""
        workdir = "." if self.workdir is None else relative(bench, self.workdir)
        refusal = await objection(bench, workdir, directory=True)
        if refusal is not None:
            return refusal
        request = ExecRequest(
            argv=(bench.sandbox.identity.shell, "-c", self.command),
            cwd=workdir,
            timeout_seconds=min(self.timeout_seconds, bench.timeout_seconds),
            max_output_bytes=bench.max_output_bytes,
        )
        return told(await bench.sandbox.exec(request))


def told(ended: ExecResult) -> Performed:
    """Tell how a command ended, in the fields that agents know."""
    exit_code = ended.exit_code if ended.signal is None else _SIGNAL_BASE + ended.signal
    result: dict[str, JsonValue] = {"exit_code": exit_code, "error": None}
    if ended.signal is not None:
        result["signal"] = ended.signal
    reasons: tuple[Reason, ...] = ()
    if ended.limit is not None:
        detail = f"the command was stopped by its {ended.limit} limit after {ended.wall_seconds:.1f} s"
        reasons = (Reason(code=f"limit.{ended.limit}", detail=detail),)
        result.update({"exit_code": _TIMED_OUT if ended.limit == "wall" else None, "error": detail})
    return Performed(
        status="ok" if ended.limit is None else "limit",
        reasons=reasons,
        output=ended.output,
        truncated=ended.truncated,
        exit_code=None if ended.limit is not None else exit_code,
        limit=ended.limit,
        written_bytes=ended.written_bytes,
        result=result,
        observed=_observed(ended),
    )


def _observed(ended: ExecResult) -> dict[str, JsonValue]:
    # Only of output too long to be kept: a bare digest of a short one could be guessed from a shared journal.
    whole: dict[str, JsonValue] = {"output_sha256": ended.output_sha256} if ended.truncated else {}
    return {
        **whole,
        "output_bytes": ended.output_bytes,
        "wall_ms": round(ended.wall_seconds * 1000),
        "cpu_ms": round(ended.cpu_seconds * 1000),
        "peak_memory_bytes": ended.peak_memory_bytes,
        "written_bytes": ended.written_bytes,
    }


def _parse(given: Mapping[str, JsonValue]) -> Action | Reason:
    values = _ARGUMENTS.read(given)
    if isinstance(values, Reason):
        return values
    command = str(values["command"])
    problem = _command_problem(command)
    if problem is not None:
        return Reason(code="arguments.invalid", detail=problem)
    timeout, workdir = values["timeout"], values["workdir"]
    return RunCommand(
        command=command,
        timeout_seconds=float(timeout) if isinstance(timeout, int) else 180.0,
        workdir=None if workdir is None else str(workdir),
    )


def _command_problem(command: str) -> str | None:
    if "\0" in command:
        return "command holds a NUL"
    if not command.strip():
        return "command is empty"
    if (
        len(command) > _MAX_COMMAND_BYTES // 4
        and len(command.encode("utf-8", "surrogateescape")) > _MAX_COMMAND_BYTES
    ):
        return f"command is longer than {_MAX_COMMAND_BYTES} bytes; put it into a file"
    return None


_ARGUMENTS = Arguments(
    Argument(name="command", kind="string", description="The shell command", required=True),
    Argument(
        name="timeout",
        kind="integer",
        description="Seconds after which the command is stopped",
        default=180,
        minimum=1,
        maximum=600,
    ),
    Argument(
        name="workdir",
        kind="string",
        description="Directory to run in, relative to the workspace or absolute below its mount point",
    ),
    Argument(
        name="background",
        kind="boolean",
        description="Commands run in the foreground and end with the call",
        only=False,
    ),
    Argument(name="pty", kind="boolean", description="There is no terminal device here", only=False),
    Argument(name="notify_on_complete", kind="boolean", description="Has no meaning here", only=False),
    Argument(name="watch_patterns", kind="strings", description="Has no meaning here", only=[]),
)

TERMINAL: Final = Tool(
    name="terminal",
    description=(
        "Run one shell command in the workspace and wait for its end. Each command starts afresh: no "
        "directory, variable or process outlives it; files do. There is no network."
    ),
    input_schema=_ARGUMENTS.schema(),
    parse=_parse,
    text_field="output",
    runs_command=True,
    deadline_seconds=660.0,
)

"""Run a remit's checks over what a run left: a fresh sandbox each, judged by the status that the host saw."""

from __future__ import annotations

from dataclasses import dataclass

from budgets.remit import Check
from budgets.verdict import CheckStatus
from executor.workshop import SandboxFactory
from sandboxes.base import ExecRequest, ExecResult, SandboxSpec
from sandboxes.errors import SandboxError
from sandboxes.workspace.errors import WorkspaceError
from sandboxes.workspace.manifest import Manifest
from sandboxes.workspace.restore import restore_changes

_KEPT_OUTPUT_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRun:
    """How one check went; ``output`` is for the reader and decides nothing."""

    check: Check
    status: CheckStatus
    exit_code: int | None
    detail: str
    output: bytes
    truncated: bool
    wall_seconds: float


async def run_check(
    check: Check, *, spec: SandboxSpec, manifest: Manifest, factory: SandboxFactory
) -> CheckRun:
    """Run one check in a sandbox that no call of the model has ever been in."""
    request = ExecRequest(argv=check.run, timeout_seconds=check.timeout, max_output_bytes=_KEPT_OUTPUT_BYTES)
    try:
        async with factory(spec) as sandbox:
            await restore_changes(manifest, sandbox)
            return _judged(check, await sandbox.exec_last(request))
    except (SandboxError, WorkspaceError) as error:
        return CheckRun(
            check=check,
            status="not_run",
            exit_code=None,
            detail=str(error),
            output=b"",
            truncated=False,
            wall_seconds=0.0,
        )


def _judged(check: Check, ended: ExecResult) -> CheckRun:
    if ended.limit is not None:
        status, detail = _stopped(ended)
    elif ended.signal is not None:
        status, detail = "failed", f"killed by signal {ended.signal}"
    else:
        status, detail = ("passed" if ended.exit_code == 0 else "failed"), f"exit status {ended.exit_code}"
    return CheckRun(
        check=check,
        status=status,
        exit_code=ended.exit_code,
        detail=detail,
        output=ended.output,
        truncated=ended.truncated,
        wall_seconds=ended.wall_seconds,
    )


def _stopped(ended: ExecResult) -> tuple[CheckStatus, str]:
    # Out of time says nothing about the result; every other limit was reached by what the check ran.
    status: CheckStatus = "not_run" if ended.limit == "wall" else "failed"
    return status, f"stopped by the {ended.limit} limit"

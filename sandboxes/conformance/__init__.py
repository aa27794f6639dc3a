"""The suite that every backend must pass, usable from any test runner or none.

A check is an async function over an opener and a workspace that `make_workspace` made; it raises
`NotConforming` with what it expected and what it saw. `run_conformance` runs all of them, each on a fresh
workspace, and says how each ended.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from sandboxes.conformance.commands import COMMAND_CHECKS
from sandboxes.conformance.files import FILE_CHECKS
from sandboxes.conformance.limits import LIMIT_CHECKS
from sandboxes.conformance.suite import Check, NotConforming, OpenSandbox, make_workspace
from sandboxes.errors import SandboxError

CHECKS: tuple[Check, ...] = (*FILE_CHECKS, *COMMAND_CHECKS, *LIMIT_CHECKS)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOutcome:
    """How one check ended; ``detail`` is empty when it passed."""

    name: str
    passed: bool
    detail: str
    seconds: float


async def run_conformance(
    open_sandbox: OpenSandbox, *, checks: tuple[Check, ...] = CHECKS
) -> tuple[CheckOutcome, ...]:
    """Run checks one after the other against a backend; a check that fails does not stop the next."""
    return tuple([await _outcome(open_sandbox, check) for check in checks])


async def _outcome(open_sandbox: OpenSandbox, check: Check) -> CheckOutcome:
    started = time.monotonic()
    directory = await anyio.to_thread.run_sync(tempfile.TemporaryDirectory)
    detail = ""
    try:
        workspace = await anyio.to_thread.run_sync(make_workspace, Path(directory.name))
        await check.run(open_sandbox, workspace)
    except (NotConforming, SandboxError, TimeoutError, ExceptionGroup) as error:
        detail = f"{type(error).__name__}: {error}"
    finally:
        await anyio.to_thread.run_sync(directory.cleanup)
    return CheckOutcome(name=check.name, passed=not detail, detail=detail, seconds=time.monotonic() - started)


__all__ = [
    "CHECKS",
    "Check",
    "CheckOutcome",
    "NotConforming",
    "OpenSandbox",
    "make_workspace",
    "run_conformance",
]

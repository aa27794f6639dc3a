"""Remits and runs named on the command line, opened; what cannot be opened is told in one way."""

from __future__ import annotations

from pathlib import Path

from budgets.remit import Remit, RemitInvalid, parse
from executor.audit.errors import RunNotFound, StoreRefused
from executor.cli.errors import InvocationError
from executor.store import RunDirectory, RunStore

LATEST = "latest"
_MAX_REMIT_BYTES = 1024 * 1024


def load_remit(path: Path) -> Remit:
    """Read and parse a remit.

    Raises:
        InvocationError: It cannot be read, or something in it is wrong; every problem is named.
    """
    try:
        return read_remit(path)
    except RemitInvalid as error:
        raise InvocationError(
            str(error), hint="every key is in docs/remit.md, the JSON Schema in `remit schema`"
        ) from error


def read_remit(path: Path) -> Remit:
    """Read and parse a remit.

    Raises:
        InvocationError: It cannot be read.
        RemitInvalid: Something in it is wrong.
    """
    try:
        data = path.read_bytes()[: _MAX_REMIT_BYTES + 1]
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvocationError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if len(data) > _MAX_REMIT_BYTES:
        raise InvocationError(f"{path}: longer than {_MAX_REMIT_BYTES} bytes")
    return parse(text, source=str(path))


def open_store(state_dir: Path | None) -> RunStore:
    """Open the store of runs that the options name."""
    return RunStore(state_dir) if state_dir is not None else RunStore.default()


def open_run_directory(state_dir: Path | None, run_id: str) -> RunDirectory:
    """Find one run by its exact id, or the newest by ``latest``.

    Raises:
        InvocationError: There is no such run.
    """
    store = open_store(state_dir)
    try:
        return store.latest() if run_id == LATEST else store.open(run_id)
    except (RunNotFound, StoreRefused) as error:
        hint = (
            "make one: remit demo, remit replay or remit mcp" if run_id == LATEST else "list them: remit runs"
        )
        raise InvocationError(str(error), hint=hint) from error

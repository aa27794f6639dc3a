"""The changes that a run left, opened for the commands that show, take or drop them."""

from __future__ import annotations

from collections.abc import Mapping

from executor.audit.errors import JournalDamaged, KeyRefused
from executor.audit.reader import read_records
from executor.audit.verify import verify_receipt
from executor.cli.errors import CommandError, InvocationError
from executor.cli.summary import RunSummary, summarise
from executor.store import RunDirectory
from sandboxes.workspace.manifest import Manifest, load_manifest


def load_changes(directory: RunDirectory) -> Manifest:
    """Load what a run changed; every digest is checked.

    Raises:
        InvocationError: There is nothing kept.
        ChangesInvalid: It is damaged.
    """
    if not directory.changes_path.is_dir():
        raise InvocationError(
            f"run {directory.run_id}: no changes are kept",
            hint="they were discarded, or the run was killed before it could keep them",
        )
    return load_manifest(directory.changes_path)


def require_finished(directory: RunDirectory) -> RunSummary:
    """Give the summary of a run that has its verdict.

    Raises:
        InvocationError: It has none yet.
    """
    summary = summarise(directory)
    if summary is None or summary.state != "finished":
        state = "has no journal" if summary is None else f"is {summary.state}"
        raise InvocationError(
            f"run {directory.run_id} {state}: there is no verdict on it",
            hint=f"judge it first: remit finish {directory.run_id}",
        )
    return summary


def opened_microseconds(directory: RunDirectory) -> int:
    """Tell when the run was opened, in microseconds since 1970, as its first record has it.

    Raises:
        CommandError: The record does not say.
    """
    try:
        details = next(read_records(directory.journal_path)).body["details"]
        if isinstance(details, Mapping) and isinstance(opened := details.get("opened_us"), int):
            return opened
    except (StopIteration, KeyError, JournalDamaged) as error:
        raise CommandError(f"{directory.journal_path}: no first record: {error}") from error
    raise CommandError(f"{directory.journal_path}: the first record does not say when the run was opened")


def require_receipted(manifest: Manifest, directory: RunDirectory, *, key: str | None) -> None:
    """Make sure that these are the changes that the receipt was signed over, and the journal is its own.

    Raises:
        CommandError: They are others, or the receipt does not hold under ``key``.
    """
    receipt = directory.receipt_path
    try:
        found = verify_receipt(receipt, journal=directory.journal_path, key=key)
    except (OSError, KeyRefused) as error:
        raise CommandError(
            f"{receipt}: {error}", hint="without a receipt nothing says what was judged"
        ) from error
    if found.receipt is None or not found.ok:
        first = found.problems[0]
        raise CommandError(
            f"{receipt}: does not hold: {first.code}: {first.detail}",
            hint=f"see remit receipt verify {directory.run_id}; nothing was applied",
        )
    stated = found.receipt.changes.manifest
    if stated != manifest.digest:
        raise CommandError(
            f"{manifest.directory}: {manifest.digest} is not what the receipt states, {stated}",
            hint="the changes were altered after the verdict; nothing was applied",
        )

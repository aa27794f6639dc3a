"""``remit clean``: old runs and leftovers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from executor.audit.errors import RunLocked
from executor.cli.amounts import size_text
from executor.cli.load import open_store
from executor.cli.options import json_option, state_dir_option
from executor.cli.summary import summarise
from executor.cli.text import plural, table, talk, write, write_json
from executor.store import RunDirectory, RunStore
from sandboxes.leftovers import abandoned


@dataclass(frozen=True, kw_only=True, slots=True)
class Removable:
    """A run directory that may go, and why."""

    directory: RunDirectory
    reason: str
    size_bytes: int


@click.command("clean")
@click.option(
    "--older-than",
    "days",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Age of finished runs.",
)
@click.option("--all", "every_age", is_flag=True, help="Finished runs of any age.")
@click.option(
    "--unfinished",
    is_flag=True,
    help="Suspended and killed runs as well, with what is left of their budgets.",
)
@click.option("--yes", is_flag=True, help="Remove them; without it they are only listed.")
@state_dir_option
@json_option
def command(
    days: int, every_age: bool, unfinished: bool, yes: bool, state_dir: Path | None, as_json: bool
) -> None:
    """List, and with --yes remove, old runs and leftovers.

    Without --yes nothing is removed. What goes with a run: its journal, its receipt, its changes. A run
    that a process is working on is never touched; the signing key stays.
    """
    store = open_store(state_dir)
    before = datetime.now(UTC) - (timedelta(0) if every_age else timedelta(days=days))
    found = list(_removable(store, before=before, unfinished=unfinished))
    removed = [each for each in found if yes and _remove(each.directory)]
    orphans = abandoned(remove=yes)
    if as_json:
        runs = [
            {"run": each.directory.run_id, "reason": each.reason, "bytes": each.size_bytes} for each in found
        ]
        gone = [each.directory.run_id for each in removed]
        sandboxes = [{"kind": each.kind, "name": each.name} for each in orphans]
        write_json({"runs": runs, "removed": gone, "sandboxes": sandboxes})
        return
    write(
        table(
            [(each.directory.run_id, size_text(each.size_bytes), each.reason) for each in found]
            + [(each.name, each.kind, "leftover: its broker is gone") for each in orphans]
        )
        or "nothing to remove"
    )
    if yes:
        talk(f"{plural(len(removed), 'run')} removed")
    elif found or orphans:
        talk("nothing was removed; add --yes to remove these")


def _removable(store: RunStore, *, before: datetime, unfinished: bool) -> Iterator[Removable]:
    for directory in store.list():
        reason = _reason(directory, before=before, unfinished=unfinished)
        if reason is not None and not _is_at_work(directory):
            yield Removable(directory=directory, reason=reason, size_bytes=_size(directory.path))


def _reason(directory: RunDirectory, *, before: datetime, unfinished: bool) -> str | None:
    summary = summarise(directory)
    if summary is None:
        return "leftover: a run that never began"
    if summary.state == "finished":
        return f"finished {summary.ended[:10]}" if datetime.fromisoformat(summary.ended) <= before else None
    return f"{summary.state}, without a verdict" if unfinished else None


def _is_at_work(directory: RunDirectory) -> bool:
    try:
        with directory.lock():
            return False
    except RunLocked:
        return True


def _remove(directory: RunDirectory) -> bool:
    try:
        with directory.lock():
            shutil.rmtree(directory.path)
    except RunLocked:
        return False
    return True


def _size(path: Path) -> int:
    return sum(entry.lstat().st_size for entry in path.rglob("*") if not entry.is_dir())

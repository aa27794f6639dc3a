"""``remit runs``: the runs of the state directory."""

from __future__ import annotations

from pathlib import Path

import click

from executor.cli.load import open_store
from executor.cli.options import json_option, state_dir_option
from executor.cli.summary import RunSummary, summarise
from executor.cli.text import table, talk, write, write_json


@click.command("runs")
@click.option("--task", metavar="ID", help="Only runs of this task.")
@state_dir_option
@json_option
def command(task: str | None, state_dir: Path | None, as_json: bool) -> None:
    """List the runs in the state directory.

    Oldest first. A run is open (at work, or killed at it), suspended (`remit finish` judges it), finished, or
    damaged.
    """
    store = open_store(state_dir)
    found = [summary for directory in store.list() if (summary := summarise(directory)) is not None]
    chosen = [summary for summary in found if task in (None, summary.task)]
    if as_json:
        write_json({"state_dir": str(store.root), "runs": [summary.to_json() for summary in chosen]})
    elif chosen:
        write(
            table(
                map(_row, chosen), header=("RUN", "TASK", "STATE", "VERDICT", "ALLOWED", "DENIED", "STARTED")
            )
        )
    else:
        talk(f"no runs in {store.runs_path}")


def _row(summary: RunSummary) -> tuple[str, ...]:
    return (
        summary.run,
        summary.task,
        summary.state,
        summary.verdict or "-",
        str(summary.allowed),
        str(summary.denied),
        summary.started[:19],
    )

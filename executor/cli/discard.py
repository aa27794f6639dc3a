"""``remit discard``: a run's changes thrown away."""

from __future__ import annotations

from pathlib import Path

import click

from executor.cli.changes import require_finished
from executor.cli.load import open_run_directory
from executor.cli.options import chosen_run_argument, json_option, state_dir_option
from executor.cli.text import write, write_json
from sandboxes.workspace.manifest import discard


@click.command("discard")
@chosen_run_argument
@state_dir_option
@json_option
def command(run_id: str, state_dir: Path | None, as_json: bool) -> None:
    """Throw a run's changes away; its journal and receipt stay.

    Only a finished run's: the changes of a suspended one are what it goes on with. RUN is an exact id, or
    latest.
    """
    directory = open_run_directory(state_dir, run_id)
    with directory.lock():
        require_finished(directory)
        discarded = discard(directory.changes_path)
    if as_json:
        write_json({"run": directory.run_id, "discarded": discarded})
    else:
        write(f"run {directory.run_id}: {'changes discarded' if discarded else 'there were no changes'}")

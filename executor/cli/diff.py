"""``remit diff``: what a run changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from executor.cli.changes import load_changes
from executor.cli.load import open_run_directory
from executor.cli.options import json_option, run_argument, state_dir_option
from executor.cli.text import table, talk, visible, write, write_json
from sandboxes.workspace.changes import Change
from sandboxes.workspace.diff import render_diff
from sandboxes.workspace.names import escape_name


@click.command("diff")
@run_argument
@click.option("--stat", is_flag=True, help="List the changed paths only.")
@state_dir_option
@json_option
def command(run: str, stat: bool, state_dir: Path | None, as_json: bool) -> None:
    """Show what a run changed, as a unified diff.

    Compared with the workspace as it is now. Characters that a terminal would obey are spelled out.
    """
    manifest = load_changes(open_run_directory(state_dir, run))
    if as_json:
        diff = None if stat else render_diff(manifest, manifest.lower)
        write_json(
            {
                "manifest": manifest.digest,
                "changes": [_plain(each) for each in manifest.changes],
                "diff": diff,
            }
        )
    elif not manifest.changes:
        talk("no changes")
    elif stat:
        write(table([(each.change, each.kind, escape_name(each.path)) for each in manifest.changes]))
    else:
        write(visible(render_diff(manifest, manifest.lower), keep="\n\t").rstrip("\n"))


def _plain(change: Change) -> Mapping[str, object]:
    return {
        "path": change.path,
        "change": change.change,
        "kind": change.kind,
        "mode": None if change.mode is None else f"{change.mode:04o}",
        "size": change.size,
        "sha256": change.sha256,
        "target": change.target,
        "before_sha256": change.before_sha256,
    }

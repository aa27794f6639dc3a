"""``remit apply``: a run's changes into the user's tree."""

from __future__ import annotations

from pathlib import Path

import click

from executor.cli.changes import load_changes, opened_microseconds, require_finished, require_receipted
from executor.cli.errors import EXIT_FAIL, EXIT_OK
from executor.cli.evidence import store_key
from executor.cli.load import open_run_directory
from executor.cli.options import chosen_run_argument, json_option, state_dir_option
from executor.cli.text import plural, talk, visible, write, write_json
from executor.commit import commit
from sandboxes.workspace.apply import ApplyReport
from sandboxes.workspace.names import escape_name


@click.command("apply")
@chosen_run_argument
@state_dir_option
@json_option
def command(run_id: str, state_dir: Path | None, as_json: bool) -> int:
    """Put a run's changes into the workspace they were made over.

    All or none: where the workspace is no longer what the run saw, nothing is written and the exit code
    is 1. The changes must be the ones that the run's receipt was signed over. RUN is an exact id, or
    latest.
    """
    directory = open_run_directory(state_dir, run_id)
    with directory.lock():
        summary = require_finished(directory)
        manifest = load_changes(directory)
        require_receipted(manifest, directory, key=store_key(state_dir))
        if summary.verdict != "pass":
            talk(f"note: the verdict on this run is {summary.verdict}")
        tree = Path(summary.workspace)
        report = commit(manifest, tree, opened_us=opened_microseconds(directory))
    if as_json:
        write_json(_plain(directory.run_id, tree, report))
    else:
        _show(tree, report)
    return EXIT_OK if report.applied else EXIT_FAIL


def _plain(run_id: str, tree: Path, report: ApplyReport) -> dict[str, object]:
    return {
        "run": run_id,
        "workspace": str(tree),
        "outcome": report.outcome,
        "written": list(report.written),
        "skipped": list(report.skipped),
        "conflicts": [{"path": each.path, "detail": each.detail} for each in report.conflicts],
    }


def _show(tree: Path, report: ApplyReport) -> None:
    where = visible(str(tree), keep="")
    match report.outcome:
        case "applied":
            write(f"{plural(len(report.written), 'path')} written in {where}")
        case "already_applied":
            write(f"nothing to do: {where} is as the run left it")
        case "conflict":
            write(f"nothing written: {where} is not what the run saw")
    for path in report.written:
        write(f"  {escape_name(path)}")
    for path in report.skipped:
        write(f"  {escape_name(path)}: skipped, neither file, directory nor link")
    for conflict in report.conflicts:
        write(f"  {escape_name(conflict.path)}: {visible(conflict.detail, keep='')}")

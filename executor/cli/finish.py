"""``remit finish``: a suspended run judged."""

from __future__ import annotations

from pathlib import Path

import anyio
import click

from budgets.remit import Remit
from executor.cli.errors import InvocationError
from executor.cli.load import open_run_directory, open_store, read_remit
from executor.cli.options import chosen_run_argument, json_option, state_dir_option
from executor.cli.summary import summarise, workspace_base
from executor.cli.text import write, write_json
from executor.cli.verdict import exit_code, result_json, verdict_text
from executor.closing import RunResult
from executor.run import open_run
from executor.store import RunDirectory, RunStore


@click.command("finish")
@chosen_run_argument
@state_dir_option
@json_option
def command(run_id: str, state_dir: Path | None, as_json: bool) -> int:
    """Judge a suspended run and write its receipt.

    Its changes are put into a fresh sandbox, the checks run over them, and the verdict is the exit code.
    Also for a run whose process was killed; what was interrupted then shows in the verdict. RUN is an
    exact id, or latest.
    """
    directory = open_run_directory(state_dir, run_id)
    summary = summarise(directory)
    if summary is None or summary.state not in ("suspended", "open"):
        state = "has no journal" if summary is None else f"is {summary.state}"
        raise InvocationError(f"run {directory.run_id} {state}: there is nothing to finish")
    remit = read_remit(directory.remit_path)
    base = workspace_base(remit, Path(summary.workspace))
    result = anyio.run(_finished, remit, base, open_store(state_dir), directory)
    if as_json:
        write_json(result_json(result, directory))
    else:
        write(verdict_text(result, directory))
    return exit_code(result.verdict)


async def _finished(remit: Remit, base: Path, store: RunStore, directory: RunDirectory) -> RunResult:
    async with open_run(remit, base=base, store=store, resume=directory.run_id, source="finish") as run:
        return await run.finish()

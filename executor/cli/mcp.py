"""``remit mcp``: a run's tools for an agent, over stdin and stdout."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import click

from budgets.remit import Remit
from executor.adapters.mcp_server import serve_stdio
from executor.audit.errors import RunLocked
from executor.audit.journal import Durability
from executor.cli.errors import EXIT_OK, InvocationError
from executor.cli.load import load_remit, open_store
from executor.cli.options import durability_option, remit_argument, state_dir_option
from executor.cli.shelter import sheltered
from executor.cli.summary import finished_run, unfinished_run
from executor.cli.text import talk
from executor.cli.verdict import exit_code, verdict_text
from executor.run import Run, open_run
from executor.store import RunStore

_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What to serve, and how to end it."""

    remit: Remit
    base: Path
    store: RunStore
    resume: str | None
    finish_on_exit: bool
    durability: Durability


@click.command("mcp")
@remit_argument
@click.option("--task", metavar="ID", help="Task id instead of the remit's: one remit for several tasks.")
@click.option("--resume", metavar="RUN", help="Go on with exactly this unfinished run, or fail.")
@click.option("--new", is_flag=True, help="Start a new run, whatever runs the task has already.")
@click.option(
    "--finish-on-exit", is_flag=True, help="Judge the run when the client leaves; the verdict goes to stderr."
)
@durability_option
@state_dir_option
def command(
    remit_path: Path,
    task: str | None,
    resume: str | None,
    new: bool,
    finish_on_exit: bool,
    durability: Durability,
    state_dir: Path | None,
) -> int:
    """Serve a remit's tools to an agent over MCP on stdio.

    The budget belongs to the task, not to this process: an unfinished run of the same task is taken up
    again with what is left of its budget, also after the server was killed. When the client closes stdin,
    or on SIGTERM, the run is suspended; `remit finish` judges it. stdout carries the protocol and nothing
    else.
    """
    if resume and new:
        raise InvocationError("--resume and --new exclude each other")
    remit = _for_task(load_remit(remit_path), task)
    store, base = open_store(state_dir), remit_path.resolve().parent
    service = Service(
        remit=remit,
        base=base,
        store=store,
        resume=resume or (None if new else _run_to_resume(store, remit, base, finish_on_exit=finish_on_exit)),
        finish_on_exit=finish_on_exit,
        durability=durability,
    )
    return sheltered(lambda: anyio.run(_serve_when_free, service))


def _for_task(remit: Remit, task: str | None) -> Remit:
    if task is None:
        return remit
    document = remit.model_dump(by_alias=True)
    document["task"]["id"] = task
    try:
        return Remit.model_validate(document)
    except ValueError as error:
        raise InvocationError(
            f"--task {task}: not a task id", hint="letters, digits, '.', '_', '-'; at most 64"
        ) from error


def _run_to_resume(store: RunStore, remit: Remit, base: Path, *, finish_on_exit: bool) -> str | None:
    unfinished = unfinished_run(store, remit, base=base)
    if unfinished is not None or not finish_on_exit:
        return unfinished
    # A client may restart its server at will; judged runs must not turn that into a fresh budget each time.
    finished = finished_run(store, remit, base=base)
    if finished is not None:
        raise InvocationError(
            f"task {remit.task.id} has been judged in run {finished}",
            hint="give a new attempt another --task, or start it with --new",
        )
    return None


async def _serve_when_free(service: Service) -> int:
    # A client that restarts its server starts the new one while the old one still puts the run away.
    deadline = anyio.current_time() + _PATIENCE_SECONDS
    while True:
        try:
            return await _serve(service)
        except RunLocked:
            if anyio.current_time() > deadline:
                raise
        await anyio.sleep(_PAUSE_SECONDS)


async def _serve(service: Service) -> int:
    # The receiver outlives the run's context: a second signal must not cut short what the first one began.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with open_run(
            service.remit,
            base=service.base,
            store=service.store,
            resume=service.resume,
            source="mcp",
            durability=service.durability,
        ) as run:
            began = "taken up again" if service.resume else "started"
            talk(f"run {run.id}: {began} for task {service.remit.task.id}")
            await _until_client_leaves(run, signals)
            if service.finish_on_exit:
                result = await run.finish()
                talk(verdict_text(result, run.directory))
                return exit_code(result.verdict)
        talk(f"run {run.id}: suspended; `remit finish {run.id}` judges it")
        return EXIT_OK


async def _until_client_leaves(run: Run, signals: AsyncIterator[signal.Signals]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, signals, tasks.cancel_scope)
        await serve_stdio(run)
        tasks.cancel_scope.cancel()


async def _stop_on_signal(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
        return

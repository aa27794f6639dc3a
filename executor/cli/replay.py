"""``remit replay``: recorded tool calls, run under a remit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import click

from budgets.call import JsonValue
from budgets.remit import Remit
from executor.audit.journal import Durability
from executor.cli.errors import EXIT_MIXED, EXIT_OK, InvocationError
from executor.cli.load import load_remit, open_store
from executor.cli.options import durability_option, json_option, remit_argument, state_dir_option
from executor.cli.progress import Progress
from executor.cli.text import one_line, plural, table, talk, visible, write, write_json
from executor.cli.verdict import exit_code, result_json, verdict_text
from executor.closing import RunResult
from executor.dry_run import DryRunReport, dry_run
from executor.recordings import FORMATS, Recording, RecordingInvalid, load_recording
from executor.recordings.tool_map import MapInvalid, ToolMap, tool_map_for
from executor.replay import ReplayReport, replay
from executor.run import Run, open_run
from executor.store import RunStore

_SHOWN_CALLS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayJob:
    """A recording, and the run to put it to: a new one, or the unfinished one that ``resume`` names."""

    remit: Remit
    base: Path
    store: RunStore
    recording: Recording
    tool_map: ToolMap
    resume: str | None = None
    durability: Durability = "process"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """A recording that was run, and what the run came to."""

    run: Run
    report: ReplayReport
    result: RunResult


@click.command("replay")
@remit_argument
@click.argument(
    "recording_path", metavar="RECORDING", type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["auto", *FORMATS]),
    default="auto",
    show_default=True,
    help="What the recording is written in; auto tells it by its content.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME",
    help="Whose tool names the recording has; mcp:SERVER for SERVER_tool. May be given more than once.",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="FROM=TO[,ARG=ARG…]",
    help="A recorded tool as one of ours, and its arguments; ARG= drops one. May be given more than once.",
)
@click.option(
    "--resume",
    metavar="RUN",
    help="Go on with exactly this unfinished run; what it answered does not run again.",
)
@click.option("--dry-run", "only_decide", is_flag=True, help="Decide every call and run none.")
@durability_option
@state_dir_option
@json_option
def command(
    remit_path: Path,
    recording_path: Path,
    format_name: str,
    profiles: tuple[str, ...],
    maps: tuple[str, ...],
    resume: str | None,
    only_decide: bool,
    durability: Durability,
    state_dir: Path | None,
    as_json: bool,
) -> int:
    """Run the recorded tool calls of a model under a remit.

    Every call is decided, recorded and, if allowed, run in a sandbox; the exit code is the verdict's. A
    call that nothing maps to is a denied call, never left out. With --dry-run: 0 when every call would
    have been within bounds, 3 when not.
    """
    remit = load_remit(remit_path)
    recording, tool_map = _read(recording_path, format_name, profiles, maps)
    if only_decide:
        return _tell_dry_run(dry_run(remit, recording, tool_map), as_json=as_json)
    job = ReplayJob(
        remit=remit,
        base=remit_path.resolve().parent,
        store=open_store(state_dir),
        recording=recording,
        tool_map=tool_map,
        resume=resume,
        durability=durability,
    )
    replayed = anyio.run(replay_recording, job)
    if as_json:
        write_json(replayed_json(replayed))
    else:
        _tell(replayed)
    return exit_code(replayed.result.verdict)


async def replay_recording(job: ReplayJob) -> Replayed:
    """Put a recording to a run and finish that."""
    async with open_run(
        job.remit,
        base=job.base,
        store=job.store,
        resume=job.resume,
        source="replay",
        durability=job.durability,
    ) as run:
        with Progress() as progress:
            report = await replay(run, job.recording, job.tool_map, progress=progress)
        return Replayed(run=run, report=report, result=await run.finish())


def replayed_json(replayed: Replayed) -> Mapping[str, JsonValue]:
    """Give a replay as ``--json`` prints it."""
    return {**replayed.report.to_json(), **result_json(replayed.result, replayed.run.directory)}


def _read(
    path: Path, format_name: str, profiles: tuple[str, ...], maps: tuple[str, ...]
) -> tuple[Recording, ToolMap]:
    try:
        recording = load_recording(path, format_name)  # type: ignore[arg-type]  # click has checked the choice
        return recording, tool_map_for(recording.format, profiles=profiles, maps=maps)
    except (RecordingInvalid, MapInvalid) as error:
        raise InvocationError(str(error), hint=error.hint) from error


def _tell(replayed: Replayed) -> None:
    report = replayed.report
    write(_headline(report, report.by_status))
    notable = [call for call in report.calls if call.status != "ok"]
    rows = [
        (f"  {call.index}", call.tool, call.status, ", ".join(call.codes) or (call.limit or ""))
        for call in notable[:_SHOWN_CALLS]
    ]
    if rows:
        write(table(rows))
    if len(notable) > _SHOWN_CALLS:
        write(f"  and {len(notable) - _SHOWN_CALLS} more: remit log show {replayed.run.id}")
    for note in report.notes:
        talk(f"note: {visible(note, keep='')}")
    write(verdict_text(replayed.result, replayed.run.directory))


def _tell_dry_run(report: DryRunReport, *, as_json: bool) -> int:
    code = EXIT_OK if report.in_bounds else EXIT_MIXED
    if as_json:
        write_json({**report.to_json(), "exit_code": code})
        return code
    write(_headline(report, report.by_action))
    for call in [call for call in report.calls if call.decision.action != "allow"][:_SHOWN_CALLS]:
        write(f"  {call.index}  {one_line(call.tool)}  {call.decision.action}")
        for reason in call.decision.reasons:
            write(f"      {reason.code}: {one_line(reason.detail, limit=200)}")
    write("within bounds" if report.in_bounds else "not within bounds")
    for unknown in report.unknowns:
        write(f"not known: {unknown}")
    return code


def _headline(report: ReplayReport | DryRunReport, counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    calls, turns = plural(len(report.calls), "call"), plural(report.turns, "turn")
    return f"{calls} of {turns} ({report.format}): {told or 'none'}"

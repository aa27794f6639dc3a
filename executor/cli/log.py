"""``remit log``: what a run's journal says, and whether it is what was written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from budgets.call import JsonValue
from executor.audit import query
from executor.audit.reader import Record
from executor.audit.scan import Problem
from executor.audit.verify import Verification, verify_journal
from executor.cli.errors import EXIT_FAIL, EXIT_OK, InvocationError
from executor.cli.evidence import Evidence, find_evidence
from executor.cli.options import json_option, key_option, run_argument, state_dir_option
from executor.cli.records import record_text
from executor.cli.text import one_line, plural, table, visible, write, write_json


@click.group("log")
def command() -> None:
    """Show or verify the journal of a run."""


@command.command("show")
@run_argument
@click.option("--kind", metavar="KIND", help="Only records of this kind, such as call.decided.")
@click.option("--call", metavar="ID", help="Only records of this call, such as c-0003.")
@click.option("--tool", metavar="NAME", help="Only the calls of this tool.")
@state_dir_option
@json_option
def show(
    run: str, kind: str | None, call: str | None, tool: str | None, state_dir: Path | None, as_json: bool
) -> int:
    """Show the records of a journal, in order. Nothing is verified; `remit log verify` does."""
    found = query.records(_journal(run, state_dir), kind=kind, call=call, tool=tool)
    if as_json:
        write_json({"records": [_plain(record) for record in found]})
        return EXIT_OK
    for record in found:
        when = f"{record.elapsed_us / 1_000_000:>9.3f} s"
        write(f"{record.seq:>4}  {when}  {record.kind:<17}  {record_text(record)}".rstrip())
    return EXIT_OK


@command.command("violations")
@run_argument
@state_dir_option
@json_option
def violations(run: str, state_dir: Path | None, as_json: bool) -> int:
    """Show what broke a rule or tried to, with the call that did it."""
    found = query.violations(_journal(run, state_dir))
    if as_json:
        write_json({"violations": [row.to_json() for row in found]})
        return EXIT_OK
    if not found:
        write("no violations")
        return EXIT_OK
    rows = [
        (str(row.seq), row.severity, row.code, row.call or "", row.tool or "", row.detail, row.preview or "")
        for row in found
    ]
    write(table(rows, header=("RECORD", "SEVERITY", "CODE", "CALL", "TOOL", "DETAIL", "ARGUMENTS")))
    return EXIT_OK


@command.command("verify")
@run_argument
@click.option(
    "--receipt",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Receipt to hold it against.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="Checkpoint kept elsewhere to hold it against; may be given more than once.",
)
@key_option
@state_dir_option
@json_option
def verify(
    run: str,
    receipt: Path | None,
    checkpoints: tuple[Path, ...],
    key: str | None,
    state_dir: Path | None,
    as_json: bool,
) -> int:
    """Say whether a journal is what was written, and name the first bad record if not.

    Needs no secret. Exit code 0 when it holds, 1 when it does not.
    """
    evidence = find_evidence(run, state_dir=state_dir, key=key)
    found = verify_journal(
        _required(evidence, run),
        receipt=receipt or evidence.receipt,
        key=evidence.key,
        checkpoints=(*checkpoints, *([evidence.checkpoint] if evidence.checkpoint else ())),
    )
    if as_json:
        write_json(verification_json(found))
    else:
        write(verification_text(found))
    return EXIT_OK if found.ok else EXIT_FAIL


def verification_json(found: Verification) -> Mapping[str, object]:
    """Give a journal's verification as ``--json`` prints it."""
    return {
        "ok": found.ok,
        "intact": found.intact,
        "complete": found.complete,
        "anchored": found.anchored,
        "run": found.run,
        "records": found.records,
        "signed_size": found.signed_size,
        "root": found.root,
        "sha256": found.sha256,
        "key": found.key,
        "open_calls": [
            {"record": call.seq, "call": call.call, "tool": call.tool} for call in found.open_calls
        ],
        "problems": [problem_json(problem) for problem in found.problems],
    }


def problem_json(problem: Problem) -> Mapping[str, JsonValue]:
    """Give one problem as ``--json`` prints it."""
    return {"record": problem.seq, "last": problem.last, "code": problem.code, "detail": problem.detail}


def verification_text(found: Verification) -> str:
    """Tell a journal's verification in lines."""
    state = "holds" if found.ok else "does not hold"
    lines = [f"journal of run {visible(found.run or 'unknown', keep='')}: {state}"]
    lines.append(
        f"  {plural(found.records, 'record')}, {found.signed_size} of them under a signed checkpoint"
    )
    if not found.anchored:
        lines.append("  held against nothing from outside: pass --key, --receipt or --checkpoint")
    lines += [
        f"  {call.call} ({visible(call.tool, keep='')}): allowed in record {call.seq}, no end"
        for call in found.open_calls
    ]
    lines += [problem_text(problem) for problem in found.problems]
    return "\n".join(lines)


def problem_text(problem: Problem) -> str:
    """Tell one problem in a line."""
    if problem.seq is None:
        where = "journal"
    elif problem.last is None:
        where = f"record {problem.seq}"
    else:
        where = f"records {problem.seq} to {problem.last}"
    return f"  {where}: {problem.code}: {one_line(problem.detail, limit=300)}"


def _journal(run: str, state_dir: Path | None) -> Path:
    return _required(find_evidence(run, state_dir=state_dir, key=None), run)


def _required(evidence: Evidence, run: str) -> Path:
    if evidence.journal is None:
        raise InvocationError(f"{run}: has no journal", hint="name a run, its directory, or a file *.jsonl")
    return evidence.journal


def _plain(record: Record) -> Mapping[str, object]:
    return {
        "seq": record.seq,
        "ts": record.ts,
        "elapsed_us": record.elapsed_us,
        "kind": record.kind,
        "body": record.body,
    }

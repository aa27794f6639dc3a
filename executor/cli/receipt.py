"""``remit receipt``: what a run's signed statement says, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from executor.audit.receipt import Receipt, read_receipt
from executor.audit.verify import ReceiptVerification, verify_receipt
from executor.cli.errors import EXIT_FAIL, EXIT_OK, InvocationError
from executor.cli.evidence import Evidence, find_evidence
from executor.cli.log import problem_json, problem_text, verification_json
from executor.cli.options import json_option, key_option, run_argument, state_dir_option
from executor.cli.text import plural, table, visible, write, write_json
from executor.cli.verdict import reason_text

_MAX_SENTENCE = 300


@click.group("receipt")
def command() -> None:
    """Show or verify the receipt of a run."""


@command.command("show")
@run_argument
@state_dir_option
@json_option
def show(run: str, state_dir: Path | None, as_json: bool) -> int:
    """Show what a receipt states. Nothing is verified; `remit receipt verify` does."""
    path = _required(find_evidence(run, state_dir=state_dir, key=None), run)
    try:
        _, statement = read_receipt(path)
    except ValueError as error:
        raise InvocationError(f"{path}: {error}") from error
    if as_json:
        write_json(statement.model_dump(mode="json", by_alias=True))
    else:
        write(table(_rows(statement.predicate), limit=_MAX_SENTENCE))
    return EXIT_OK


@command.command("verify")
@run_argument
@click.option(
    "--journal",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Journal to hold it against.",
)
@key_option
@state_dir_option
@json_option
def verify(run: str, journal: Path | None, key: str | None, state_dir: Path | None, as_json: bool) -> int:
    """Say whether a receipt is signed as it stands and says what its journal says.

    Needs no secret. Exit code 0 when it holds, 1 when it does not.
    """
    evidence = find_evidence(run, state_dir=state_dir, key=key)
    path = _required(evidence, run)
    found = verify_receipt(path, journal=journal or evidence.journal, key=evidence.key)
    if as_json:
        write_json(_verification_json(found))
    else:
        write("\n".join(_verification_lines(path, found)))
    return EXIT_OK if found.ok else EXIT_FAIL


def _required(evidence: Evidence, run: str) -> Path:
    if evidence.receipt is None:
        raise InvocationError(
            f"{run}: has no receipt", hint=f"a run gets one when it is judged: remit finish {run}"
        )
    return evidence.receipt


def _verification_json(found: ReceiptVerification) -> Mapping[str, object]:
    return {
        "ok": found.ok,
        "key_pinned": found.key_pinned,
        "run": found.receipt.run.id if found.receipt else None,
        "verdict": found.receipt.verdict.outcome if found.receipt else None,
        "problems": [problem_json(problem) for problem in found.problems],
        "journal": None if found.journal is None else verification_json(found.journal),
    }


def _verification_lines(path: Path, found: ReceiptVerification) -> Iterator[str]:
    name = (
        f"of run {visible(found.receipt.run.id, keep='')}" if found.receipt else visible(str(path), keep="")
    )
    yield f"receipt {name}: {'holds' if found.ok else 'does not hold'}"
    if found.ok and found.receipt is not None:
        yield f"  verdict: {found.receipt.verdict.outcome}"
    if not found.key_pinned:
        yield "  signed by the key that it names itself: pass --key to know whose it is"
    if found.journal is None:
        yield "  its journal was not at hand: pass --journal to compare the two"
    yield from map(problem_text, found.problems)


def _rows(receipt: Receipt) -> Iterator[tuple[str, str]]:
    yield "run", receipt.run.id
    yield "task", f"{receipt.run.task}, class {receipt.run.task_class}"
    yield "from", f"{receipt.run.started} to {receipt.run.ended}, through {receipt.run.source}"
    yield "remit", receipt.remit.digest
    yield "verdict", receipt.verdict.outcome
    for reason in receipt.verdict.reasons:
        yield "  reason", reason_text(reason.code, reason.detail, reason.records)
    calls = receipt.calls
    yield "calls", f"{calls.allowed} allowed, {calls.denied} denied, {len(calls.interrupted)} interrupted"
    for violation in receipt.violations:
        yield "  violation", f"{violation.code}: {violation.detail} (record {violation.record})"
    for check in receipt.checks:
        yield "check", f"{check.name}: {check.status}"
    yield "changes", plural(len(receipt.changes.files), "path")
    for change in receipt.changes.files:
        yield f"  {change.change}", f"{change.path}{f' sha256:{change.sha256}' if change.sha256 else ''}"
    for growth in receipt.changes.growth:
        yield "  growth", f"{growth.code}: {growth.path}"
    if receipt.sandbox is not None:
        sandbox = receipt.sandbox
        many = f", a fresh one for each call, {sandbox.opened} opened" if sandbox.lifetime == "call" else ""
        yield "sandbox", f"{sandbox.backend} {sandbox.backend_version}, {sandbox.strategy}{many}"
        for control in receipt.sandbox.controls:
            yield "  control", f"{control.state}: {control.name}: {control.observed or control.configured}"
    yield "journal", f"{plural(receipt.journal.size, 'record')}, root {receipt.journal.root}"
    yield "key", receipt.journal.key

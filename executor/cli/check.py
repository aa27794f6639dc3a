"""``remit check``: lint a remit, explain it, ask it for one decision."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from budgets.call import Effects, JsonValue, ToolCall
from budgets.decide import Decision, decide
from budgets.ledger import Ledger
from budgets.reasons import Reason
from budgets.remit import Remit, RemitInvalid, digest, to_document
from executor.cli.authority import authority, remarks
from executor.cli.errors import (
    EXIT_MACHINERY,
    EXIT_MIXED,
    EXIT_OK,
    EXIT_UNPROVEN,
    EXIT_USAGE,
    InvocationError,
    show_error,
)
from executor.cli.load import open_store, read_remit
from executor.cli.options import json_option, remit_argument, state_dir_option
from executor.cli.text import table, visible, write, write_json
from executor.errors import RemitUnenforceable
from executor.plan import plan_sandbox
from executor.tools.registry import understand
from sandboxes.errors import SandboxUnavailable
from sandboxes.open import check_spec
from sandboxes.probe import probe

_DECISION_CODES = {"allow": EXIT_OK, "deny": EXIT_MIXED, "ask": EXIT_UNPROVEN}


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """Why the remit cannot be enforced on this host."""

    reason: str
    hint: str | None


@click.command("check")
@remit_argument
@click.option(
    "--call",
    "call_text",
    metavar="JSON",
    help='Ask for one decision: {"tool": …, "arguments": {…}}; - reads it.',
)
@state_dir_option
@json_option
def command(remit_path: Path, call_text: str | None, state_dir: Path | None, as_json: bool) -> int:
    """Lint a remit and say in words what it allows.

    Nothing runs. Exit code 0 when the remit is valid and this host can enforce it, 2 when it is not
    valid, 5 when it cannot be enforced here. With --call: 0 allow, 3 deny, 4 ask; the budget is taken as
    untouched.
    """
    try:
        remit = read_remit(remit_path)
    except RemitInvalid as error:
        return _invalid(error, as_json=as_json)
    if call_text is not None:
        return _decide(remit, _parse_call(call_text), as_json=as_json)
    obstacle = _obstacle(remit, base=remit_path.resolve().parent, state=open_store(state_dir).root)
    noted = remarks(remit, base=remit_path.resolve().parent)
    if as_json:
        write_json(_report(remit, noted, obstacle))
    else:
        _explain(remit, noted, obstacle)
    return EXIT_OK if obstacle is None else EXIT_MACHINERY


def _invalid(error: RemitInvalid, *, as_json: bool) -> int:
    if as_json:
        fields = ("line", "where", "message", "seen", "hint")
        problems = [{name: getattr(problem, name) for name in fields} for problem in error.problems]
        write_json({"valid": False, "source": error.source, "problems": problems})
    else:
        show_error(str(error))
    return EXIT_USAGE


def _parse_call(text: str) -> ToolCall:
    source = sys.stdin.read() if text == "-" else text
    try:
        value = json.loads(source)
    except ValueError as error:
        raise InvocationError(f"--call: not JSON: {error}") from error
    match value:
        case {"tool": str(tool), **rest} if not rest.keys() - {"arguments"}:
            arguments = rest.get("arguments", {})
            if isinstance(arguments, dict):
                return ToolCall(id="c-0001", tool=tool, arguments=arguments, source="check")
    raise InvocationError(
        "--call: not a tool call", hint='for example {"tool": "read_file", "arguments": {"path": "a.txt"}}'
    )


def _decide(remit: Remit, call: ToolCall, *, as_json: bool) -> int:
    understood = understand(call)
    if isinstance(understood, Reason):
        decision = _decision(remit, call, Effects(), (understood,))
    else:
        decision = _decision(remit, call, understood.effects(), ())
    if as_json:
        reasons = [{"code": reason.code, "detail": reason.detail} for reason in decision.reasons]
        write_json({"tool": call.tool, "action": decision.action, "reasons": reasons})
    else:
        write(decision.action)
        write(table([(f"  {reason.code}", reason.detail) for reason in decision.reasons]))
    return _DECISION_CODES[decision.action]


def _decision(remit: Remit, call: ToolCall, effects: Effects, problems: tuple[Reason, ...]) -> Decision:
    ledger = Ledger.open(remit.budget, started_seconds=0)
    return decide(remit, ledger, call, effects, now_seconds=0, problems=problems)


def _obstacle(remit: Remit, *, base: Path, state: Path) -> Obstacle | None:
    try:
        check_spec(plan_sandbox(remit, base=base, state=state))
    except (RemitUnenforceable, SandboxUnavailable) as error:
        return Obstacle(reason=str(error), hint=error.hint)
    reports = [report for report in probe() if report.backend == remit.sandbox.kind]
    if any(report.usable for report in reports):
        return None
    reason = next((report.reason for report in reports if report.reason), "there is no such backend here")
    return Obstacle(
        reason=f"{remit.sandbox.kind}: {reason}", hint=next((report.hint for report in reports), None)
    )


def _report(remit: Remit, noted: list[str], obstacle: Obstacle | None) -> dict[str, JsonValue]:
    return {
        "valid": True,
        "digest": digest(remit),
        "effective": to_document(remit),
        "authority": [{"topic": topic.strip(), "sentence": sentence} for topic, sentence in authority(remit)],
        "remarks": list(noted),
        "enforceable": obstacle is None,
        "obstacle": None if obstacle is None else {"reason": obstacle.reason, "hint": obstacle.hint},
    }


def _explain(remit: Remit, noted: list[str], obstacle: Obstacle | None) -> None:
    width = max(len(topic) for topic, _ in authority(remit)) + 2
    for topic, sentence in authority(remit):
        write(f"{topic.ljust(width)}{visible(sentence, keep='')}")
    write(f"{'digest'.ljust(width)}{digest(remit)}")
    for remark in noted:
        write(f"remark: {visible(remark, keep='')}")
    if obstacle is None:
        write("valid, and this host can enforce it")
        return
    write("valid, but it cannot be enforced here")
    show_error(obstacle.reason, hint=obstacle.hint)

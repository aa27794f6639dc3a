"""One line for one journal record."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from executor.audit.reader import Record
from executor.cli.text import one_line

_LIMIT = 160
Body = Mapping[str, object]


def record_text(record: Record) -> str:
    """Say in one visible line what a record holds that a reader looks for first."""
    return one_line(_SAY.get(record.kind, _anything)(record.body), limit=_LIMIT)


def _opened(body: Body) -> str:
    return f"task {body.get('task')}, remit {body.get('remit')}"


def _resumed(body: Body) -> str:
    calls = body.get("open_calls")
    interrupted = f", interrupted: {', '.join(map(str, calls))}" if isinstance(calls, list) and calls else ""
    return f"after {body.get('records')} records{interrupted}"


def _sandbox(body: Body) -> str:
    return f"{body.get('backend')} {body.get('backend_version')}, workspace by {body.get('strategy')}"


def _decided(body: Body) -> str:
    arguments = body.get("arguments")
    preview = arguments.get("preview") if isinstance(arguments, Mapping) else ""
    return f"{body.get('call')} {body.get('action')} {body.get('tool')}{_codes(body)} {preview}"


def _ended(body: Body) -> str:
    exit_code = body.get("exit_code")
    limit = body.get("limit")
    extra = f" exit {exit_code}" if exit_code is not None else f" {limit}" if limit else ""
    return f"{body.get('call')} {body.get('status')}{extra}{_codes(body)}"


def _violation(body: Body) -> str:
    return f"{body.get('code')} ({body.get('severity')}): {body.get('detail')}"


def _route(body: Body) -> str:
    served = "/".join(str(name) for name in (body.get("served_provider"), body.get("served_model")) if name)
    return f"turn {body.get('turn')}: {served or 'unknown'} (tier {body.get('tier')}, {body.get('source')})"


def _changes(body: Body) -> str:
    growth = body.get("growth")
    count = len(growth) if isinstance(growth, list) else 0
    beyond = f", {count} beyond scope" if count else ""
    return (
        f"{body.get('added')} added, {body.get('modified')} modified, {body.get('deleted')} deleted{beyond}"
    )


def _check(body: Body) -> str:
    return (
        f"{body.get('name')}: {body.get('status')} (exit {body.get('exit_code')}) {body.get('detail') or ''}"
    )


def _checkpoint(body: Body) -> str:
    return f"{body.get('size')} records signed"


def _verdict(body: Body) -> str:
    return f"{body.get('outcome')}{_codes(body)}"


def _closed(body: Body) -> str:
    reason = body.get("reason")
    return f"{body.get('state')}{f': {reason}' if reason else ''}"


def _anything(body: Body) -> str:
    return ", ".join(f"{name}={value}" for name, value in body.items())


def _codes(body: Body) -> str:
    reasons = body.get("reasons")
    if not isinstance(reasons, list) or not reasons:
        return ""
    codes = [str(reason.get("code")) for reason in reasons if isinstance(reason, Mapping)]
    return f" [{', '.join(codes)}]"


_SAY: Mapping[str, Callable[[Body], str]] = {
    "run.opened": _opened,
    "run.resumed": _resumed,
    "sandbox.opened": _sandbox,
    "call.decided": _decided,
    "call.ended": _ended,
    "violation": _violation,
    "route.noted": _route,
    "workspace.changes": _changes,
    "check.ended": _check,
    "checkpoint": _checkpoint,
    "verdict": _verdict,
    "run.closed": _closed,
}

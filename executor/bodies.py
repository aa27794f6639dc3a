"""The bodies of journal records as plain mappings; ``executor.audit.record`` documents them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from budgets.budget import Cost
from budgets.call import Effects, JsonValue, ToolCall
from budgets.reasons import Reason, lookup
from budgets.route import RouteEvidence
from executor.approval import Approval
from executor.tools.base import Performed
from sandboxes.base import Control, Sandbox

_SHOWN_PATHS = 100


def decided(
    call: ToolCall,
    *,
    arguments: Mapping[str, JsonValue],
    action: str,
    reasons: Sequence[Reason],
    cost: Cost | None = None,
    effects: Effects | None = None,
    approval: Approval | None = None,
) -> dict[str, JsonValue]:
    """Build the body of ``call.decided``."""
    body: dict[str, JsonValue] = {
        "call": call.id,
        "client_call": call.client_call_id,
        "source": call.source,
        "tool": call.tool[:200],
        "arguments": dict(arguments),
        "action": action,
        "reasons": reason_list(reasons),
    }
    if cost is not None:
        body["cost"] = {"tool": cost.tool, "written_bytes": cost.written_bytes}
    if effects is not None:
        body["effects"] = {
            "paths": [{"path": use.path, "access": use.access} for use in effects.paths[:_SHOWN_PATHS]],
            "written_bytes": effects.written_bytes,
            "runs_command": effects.runs_command,
        }
    if approval is not None:
        body["approval"] = approval.to_json()
    return body


def ended(
    call: ToolCall,
    performed: Performed,
    *,
    settled: str,
    output: Mapping[str, JsonValue],
    output_bytes: int,
    elapsed_us: int,
    changed: Sequence[str],
) -> dict[str, JsonValue]:
    """Build the body of ``call.ended``."""
    body: dict[str, JsonValue] = {
        "call": call.id,
        "status": performed.status,
        "settled": settled,
        "output": dict(output),
        "output_bytes": output_bytes,
        "written_bytes": performed.written_bytes if settled == "charged" else 0,
        "elapsed_us": elapsed_us,
        "details": dict(performed.observed),
    }
    if performed.reasons:
        body["reasons"] = reason_list(performed.reasons)
    if performed.limit is not None:
        body["limit"] = performed.limit
    if performed.exit_code is not None:
        body["exit_code"] = performed.exit_code
    if changed:
        body["changed"] = list(changed[:_SHOWN_PATHS])
    return body


def violated(
    reason: Reason, *, call: str | None = None, record: int | None = None, path: str | None = None
) -> dict[str, JsonValue]:
    """Build the body of ``violation``."""
    return {
        "code": reason.code,
        "severity": lookup(reason.code).severity,
        "detail": reason.detail,
        "call": call,
        "record": record,
        "path": path,
    }


def sandbox_opened(sandbox: Sandbox) -> dict[str, JsonValue]:
    """Build the body of ``sandbox.opened``."""
    identity = sandbox.identity
    return {
        "id": identity.id,
        "backend": identity.backend,
        "backend_version": identity.backend_version,
        "guest_digest": identity.guest_digest,
        "strategy": identity.strategy,
        "details": dict(identity.details),
        "controls": [_control(control) for control in sandbox.controls],
    }


def like_sandbox(
    opened: Mapping[str, JsonValue], first: Mapping[str, JsonValue], *, same_as: int
) -> dict[str, JsonValue] | None:
    """Tell only in what a sandbox differs from an earlier one; None when that is more than its controls."""
    known, found = _by_name(first), _by_name(opened)
    if found.keys() != known.keys() or any(
        opened[key] != first[key] for key in opened if key not in {"id", "controls"}
    ):
        return None
    told = {key: value for key, value in opened.items() if key != "details"}
    different: list[JsonValue] = [dict(control) for name, control in found.items() if control != known[name]]
    return {**told, "same_as": same_as, "controls": different}


def route_noted(evidence: RouteEvidence) -> dict[str, JsonValue]:
    """Build the body of ``route.noted``."""
    return {
        "turn": evidence.turn,
        "tier": evidence.tier,
        "source": evidence.source,
        "requested_model": evidence.requested_model,
        "served_provider": evidence.served_provider,
        "served_model": evidence.served_model,
        "fallback": evidence.fallback,
    }


def reason_list(reasons: Sequence[Reason]) -> list[JsonValue]:
    """Give reasons as the journal and every door show them."""
    return [{"code": reason.code, "detail": reason.detail} for reason in reasons]


def _by_name(opened: Mapping[str, JsonValue]) -> dict[str, Mapping[str, JsonValue]]:
    controls = cast("list[Mapping[str, JsonValue]]", opened["controls"])
    return {str(control["name"]): control for control in controls}


def _control(control: Control) -> dict[str, JsonValue]:
    return {
        "name": control.name,
        "configured": control.configured,
        "observed": control.observed,
        "state": control.state,
        "required": control.required,
    }

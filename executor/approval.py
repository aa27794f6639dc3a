"""Ask somebody whether one call may run. Silence, refusal and a broken approver all mean no."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import anyio

from budgets.call import JsonValue
from budgets.reasons import Reason

DEFAULT_TIMEOUT_SECONDS: Final = 300.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalRequest:
    """One call that waits for a yes.

    Attributes:
        digest: Stands for exactly this call with exactly these arguments.
        timeout_seconds: No answer by then is a refusal.
    """

    run: str
    call: str
    tool: str
    arguments: Mapping[str, JsonValue]
    digest: str
    timeout_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalAnswer:
    """A yes or no to the call that ``digest`` stands for.

    Attributes:
        by: Who answered, in the approver's own words; goes into the journal.
    """

    granted: bool
    digest: str
    by: str


Approver: TypeAlias = Callable[[ApprovalRequest], Awaitable[ApprovalAnswer]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """What became of a request: granted if ``refusal`` is None."""

    refusal: Reason | None
    digest: str
    by: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Give what the journal keeps of it."""
        expired = self.refusal is not None and self.refusal.code == "approval.expired"
        refused = "expired" if expired else "refused"
        return {
            "answer": "granted" if self.refusal is None else refused,
            "by": None if self.by is None else self.by[:200],
            "digest": self.digest,
        }


async def ask(approver: Approver | None, request: ApprovalRequest) -> Approval:
    """Get an answer for exactly this call."""
    if approver is None:
        return _refused(request, "approval.required", "nobody is here to approve it")
    answer = None
    with anyio.move_on_after(request.timeout_seconds):
        try:
            answer = await approver(request)
        except Exception as error:  # noqa: BLE001 - whatever broke, the call was not approved
            _log.warning("the approver failed on %s", request.call, exc_info=True)
            return _refused(request, "approval.refused", f"the approver failed: {type(error).__name__}")
    if answer is None:
        return _refused(request, "approval.expired", f"no answer within {request.timeout_seconds:g} s")
    if not hmac.compare_digest(answer.digest.encode(), request.digest.encode()):
        return _refused(request, "approval.refused", "the answer is for another call")
    if answer.granted is not True:
        return _refused(request, "approval.refused", f"refused by {answer.by}", by=answer.by)
    return Approval(refusal=None, digest=request.digest, by=answer.by)


def _refused(request: ApprovalRequest, code: str, why: str, *, by: str | None = None) -> Approval:
    reason = Reason(code=code, detail=f"{request.tool}: {why}")
    return Approval(refusal=reason, digest=request.digest, by=by)

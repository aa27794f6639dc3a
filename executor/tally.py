"""What a run's records come to: all that a verdict and a receipt need, kept as the records are written.

The same class reads the records of an earlier process when a run is taken up again, so a verdict rests on the
journal and on nothing that only lived in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from budgets.budget import Budget, Cost
from budgets.ledger import Ledger
from budgets.reasons import Reason
from budgets.route import EvidenceTier, RouteEvidence
from budgets.verdict import Violation
from executor.answers import Answer, answer_key

NOT_THE_MODELS: Final = frozenset(
    {"run.stopped", "run.closed", "audit.unavailable", "budget.violations", "approval.required"}
)


_CONTROLS_UNKNOWN: Final = {"name": "controls", "state": "missing", "required": True}
# Of a record that points at none: a sandbox of which nothing is known cannot have held what was required.
_UNDESCRIBED: Final[Mapping[str, Any]] = {"controls": [_CONTROLS_UNKNOWN]}


def counts_as_violation(reasons: Sequence[Reason]) -> bool:
    """Tell whether a denial is a rule that the model tried, and not only a run that is over."""
    return not NOT_THE_MODELS.issuperset([reason.code for reason in reasons])


@dataclass(kw_only=True, slots=True)
class Tally:
    """Sums and findings over all records so far.

    Attributes:
        denials: Denied calls, as violations; the first reason speaks for each.
        findings: Records of kind ``violation``.
        faults: Failures of the sandbox; no fault of the model's, and yet a verdict has to know.
        interrupted: Records of calls that were allowed and that no end followed before the process died.
    """

    decided: int = 0
    allowed: int = 0
    denied: int = 0
    ended: int = 0
    resumed: int = 0
    sandboxes: int = 0
    last_call: int = 0
    denials: list[Violation] = field(default_factory=list)
    findings: list[Violation] = field(default_factory=list)
    faults: list[Violation] = field(default_factory=list)
    routes: list[RouteEvidence] = field(default_factory=list)
    interrupted: list[int] = field(default_factory=list)
    sandbox: Mapping[str, Any] | None = None
    controls_missing: dict[str, int] = field(default_factory=dict)
    open_calls: dict[str, int] = field(default_factory=dict)
    _unsaved: bool = False
    _described: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def note(self, seq: int, kind: str, body: Mapping[str, Any]) -> None:
        """Take one record into account."""
        match kind:
            case "call.decided":
                self._decided(seq, body)
            case "call.ended":
                self._ended(seq, body)
            case "violation":
                self._violated(seq, body)
            case "route.noted":
                self._routed(seq, body)
            case "sandbox.opened":
                self._opened_sandbox(seq, body)
            case "run.resumed":
                self._resumed(seq)
            case "run.closed":
                self._unsaved = False

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Everything that broke a rule or tried to, in order."""
        return tuple(sorted((*self.denials, *self.findings), key=lambda violation: violation.record))

    def _decided(self, seq: int, body: Mapping[str, Any]) -> None:
        call = str(body["call"])
        self.last_call = max(self.last_call, _number(call))
        if body["action"] == "ask":
            return
        self.decided += 1
        if body["action"] == "allow":
            self.allowed += 1
            self.open_calls[call] = seq
            self._unsaved = True
            return
        self.denied += 1
        self._denied(seq, call, body["reasons"])

    def _ended(self, seq: int, body: Mapping[str, Any]) -> None:
        self.ended += 1
        call = str(body["call"])
        self.open_calls.pop(call, None)
        reasons = body.get("reasons", ())
        if body["status"] == "denied":
            self._denied(seq, call, reasons)
        # That a sandbox cannot be believed has a record of its own.
        self.faults += [
            Violation(code=str(reason["code"]), detail=str(reason["detail"]), record=seq, call=call)
            for reason in reasons
            if str(reason["code"]).startswith("sandbox.") and reason["code"] != "sandbox.integrity"
        ]

    def _denied(self, seq: int, call: str, reasons: Sequence[Mapping[str, Any]]) -> None:
        first = reasons[0] if reasons else {"code": "run.stopped", "detail": ""}
        self.denials.append(
            Violation(code=str(first["code"]), detail=str(first["detail"]), record=seq, call=call)
        )

    def _violated(self, seq: int, body: Mapping[str, Any]) -> None:
        call = body.get("call")
        self.findings.append(
            Violation(
                code=str(body["code"]),
                detail=str(body["detail"]),
                record=seq,
                call=None if call is None else str(call),
            )
        )

    def _routed(self, seq: int, body: Mapping[str, Any]) -> None:
        self.routes.append(
            RouteEvidence(
                turn=int(body["turn"]),
                tier=cast("EvidenceTier", int(body["tier"])),
                source=str(body["source"]),
                requested_model=body.get("requested_model"),
                served_provider=body.get("served_provider"),
                served_model=body.get("served_model"),
                fallback=bool(body.get("fallback")),
                record=seq,
            )
        )

    def _opened_sandbox(self, seq: int, body: Mapping[str, Any]) -> None:
        self.sandboxes += 1
        if body.get("same_as") is None:
            self._described[seq] = self.sandbox = body
        else:
            self.sandbox = _completed(body, self._described.get(int(body["same_as"]), _UNDESCRIBED))
        for control in self.sandbox["controls"]:
            if control["state"] == "missing" and control["required"]:
                self.controls_missing[str(control["name"])] = seq

    def _resumed(self, seq: int) -> None:
        self.resumed += 1
        self.interrupted += self.open_calls.values()
        self.open_calls.clear()
        if self._unsaved:
            # What those calls had changed went with the process that had the sandbox.
            self.interrupted.append(seq)
            self._unsaved = False


def _completed(body: Mapping[str, Any], first: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in what the record of a sandbox leaves to the one that it says it is the same as."""
    controls = {control["name"]: control for control in (*first["controls"], *body["controls"])}
    return {**body, **first, "id": body["id"], "controls": list(controls.values())}


class LedgerFold:
    """Rebuilds a ledger from the records that an earlier process left: what was allowed stays spent."""

    def __init__(self, budget: Budget) -> None:
        self.ledger = Ledger.open(budget, started_seconds=0.0)
        self._open: set[str] = set()

    def note(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take one record into account."""
        if kind == "call.decided" and body["action"] != "ask":
            self._decided(body)
        elif kind == "call.ended":
            self._ended(body)
        elif kind == "violation":
            self.ledger = self.ledger.note_violations()

    def finish(self) -> Ledger:
        """Charge the calls that never ended with all that they had reserved, and give the ledger."""
        for call in sorted(self._open):
            written = self.ledger.under_way[call].written_bytes
            self.ledger = self.ledger.settle(call, written_bytes=written, output_bytes=0).ledger
        self._open.clear()
        return self.ledger

    def _decided(self, body: Mapping[str, Any]) -> None:
        self.ledger = self.ledger.note_attempt()
        if body["action"] == "deny":
            self._denied(body["reasons"])
            return
        cost = body["cost"]
        self._open.add(str(body["call"]))
        self.ledger = self.ledger.reserve(
            str(body["call"]), Cost(tool=str(cost["tool"]), written_bytes=int(cost["written_bytes"]))
        )

    def _ended(self, body: Mapping[str, Any]) -> None:
        call = str(body["call"])
        self._open.discard(call)
        if body["status"] == "denied":
            self._denied(body.get("reasons", ()))
        if body["settled"] == "released":
            self.ledger = self.ledger.release(call)
            return
        self.ledger = self.ledger.settle(
            call, written_bytes=int(body["written_bytes"]), output_bytes=int(body["output_bytes"])
        ).ledger

    def _denied(self, reasons: Sequence[Mapping[str, Any]]) -> None:
        if counts_as_violation([Reason(code=reason["code"], detail="") for reason in reasons]):
            self.ledger = self.ledger.note_violations()


class AnswersFold:
    """Finds which client call ids an earlier process has answered, or was answering."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def note(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take one record into account."""
        client_call = body.get("client_call")
        if kind == "call.decided" and client_call is not None:
            key = answer_key(str(body["tool"]), str(body["arguments"]["digest"]))
            self.answers[str(client_call)] = Answer(key=key, call=str(body["call"]))


def _number(call: str) -> int:
    digits = call.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0

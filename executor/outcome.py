"""What a call answers, the same through every door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from budgets.budget import Remaining
from budgets.call import JsonValue
from budgets.reasons import Reason
from sandboxes.base import LimitName

OutcomeStatus = Literal["ok", "denied", "error", "limit"]


class Delivered(NamedTuple):
    """Text for the model, and how many bytes of its output budget it takes."""

    text: str
    bytes: int
    cut: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOutcome:
    """How one call ended and what the model is told.

    Attributes:
        status: ``denied``: refused by the remit: nothing ran, or nothing of what a command changed was kept.
            ``error``: allowed, could not be done. ``limit``: stopped by the limit named in ``limit``. A
            command's own exit status is ``ok`` with its ``exit_code``.
        output: The text for the model; at most what is left of the output budget.
        truncated: Some of the text is not in ``output``.
        result: The tool's other fields, small, by the names that agents know.
        text_field: The name under which agents of this tool expect ``output``.
        repeated: The stored outcome of an earlier call with the same client call id; nothing ran.
    """

    call: str
    status: OutcomeStatus
    reasons: tuple[Reason, ...]
    limit: LimitName | None
    exit_code: int | None
    output: str
    truncated: bool
    remaining: Remaining
    result: Mapping[str, JsonValue] = field(default_factory=dict)
    text_field: str = "output"
    repeated: bool = False

    @property
    def is_error(self) -> bool:
        """Tell whether MCP's ``isError`` is set."""
        return self.status != "ok"

    def to_json(self) -> dict[str, JsonValue]:
        """Give the outcome as every door shows it."""
        return {
            "call": self.call,
            "status": self.status,
            "reasons": [{"code": reason.code, "detail": reason.detail} for reason in self.reasons],
            "limit": self.limit,
            "exit_code": self.exit_code,
            "output": self.output,
            "truncated": self.truncated,
            "result": dict(self.result),
            "remaining": self.remaining.to_json(),
        }

    def named_result(self) -> dict[str, JsonValue]:
        """Give the result in the shape that agents built around this tool expect, text included."""
        if self.status in {"denied", "error"} and not self.result:
            return {"error": "; ".join(f"{reason.code}: {reason.detail}" for reason in self.reasons)}
        return {self.text_field: self.output, **self.result}


def deliver(output: bytes, *, max_bytes: int) -> Delivered:
    """Turn a tool's bytes into text of at most ``max_bytes`` in UTF-8; what is no UTF-8 is replaced."""
    try:
        text = output.decode()
        size = len(output)
    except UnicodeDecodeError:
        text = output.decode("utf-8", "replace")
        size = len(text.encode())
    if size <= max_bytes:
        return Delivered(text, size, cut=False)
    text = text.encode()[:max_bytes].decode("utf-8", "ignore")
    return Delivered(text, len(text.encode()), cut=True)

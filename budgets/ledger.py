"""What is spent and what is reserved: reserve before a call runs, then settle or release.

A ledger never changes; every operation gives the next one. None costs more as the run grows longer: sums are
kept, and of the calls only those under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from budgets.budget import Budget, Cost, Remaining, Usage
from budgets.reasons import Reason

_NOTHING: Final = Usage(tools=MappingProxyType({}), groups=MappingProxyType({}))
_NO_CALLS: Final[Mapping[str, Cost]] = MappingProxyType({})


class LedgerError(Exception):
    """The ledger was used against its order: an error of the caller, never something a model did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The state of one run's budget.

    Attributes:
        used: What settled calls used.
        reserved: What calls under way were charged.
        under_way: The calls that are reserved and neither settled nor released.
        attempts: Calls that were asked for, denied ones included.
        violations: Rules broken or tried.
    """

    budget: Budget
    started_seconds: float
    used: Usage = _NOTHING
    reserved: Usage = _NOTHING
    under_way: Mapping[str, Cost] = field(default_factory=lambda: _NO_CALLS)
    attempts: int = 0
    violations: int = 0
    groups_by_tool: Mapping[str, tuple[str, ...]] = field(repr=False)

    @classmethod
    def open(cls, budget: Budget, *, started_seconds: float) -> Self:
        """Open the ledger of a run that starts now, with nothing spent."""
        names = {tool for group in budget.groups.values() for tool in group.tools}
        by_tool = {
            tool: tuple(name for name, group in budget.groups.items() if tool in group.tools)
            for tool in names
        }
        return cls(budget=budget, started_seconds=started_seconds, groups_by_tool=MappingProxyType(by_tool))

    @property
    def stopped(self) -> bool:
        """Whether so many rules were broken that no further call is allowed."""
        return self.violations >= self.budget.violations

    def objections(self, cost: Cost, *, now_seconds: float) -> tuple[Reason, ...]:
        """Name every part of the budget that has no room for this call; none when it may be reserved."""
        found = self._shortages(cost)
        elapsed = now_seconds - self.started_seconds
        # Written so that a clock which gives NaN is an objection.
        if not elapsed < self.budget.wall_time_seconds:
            found.append(
                Reason(code="budget.wall_time", detail=f"{self.budget.wall_time_seconds:g} s are over")
            )
        if self.used.output_bytes >= self.budget.output_bytes:
            found.append(_short("budget.output", "output", 0, self.budget.output_bytes, " bytes"))
        if self.stopped:
            detail = f"{self.violations} of at most {self.budget.violations} violations: the run is stopped"
            found.append(Reason(code="budget.violations", detail=detail))
        return tuple(found)

    def reserve(self, call_id: str, cost: Cost) -> Ledger:
        """Charge a call before it runs.

        Raises:
            LedgerError: The call is under way already, or there is no room for it.
        """
        if call_id in self.under_way:
            raise LedgerError(f"call {call_id!a} is reserved already")
        if shortages := self._shortages(cost):
            raise LedgerError(
                f"call {call_id!a} does not fit: {'; '.join(reason.detail for reason in shortages)}"
            )
        return self._next(
            reserved=self._charged(self.reserved, cost, 1),
            under_way=MappingProxyType({**self.under_way, call_id: cost}),
        )

    def settle(self, call_id: str, *, written_bytes: int, output_bytes: int) -> Settlement:
        """Turn what was reserved for a call into what it used, also where that is more than was left.

        Raises:
            LedgerError: The call is not under way, or a number is negative.
        """
        if written_bytes < 0 or output_bytes < 0:
            raise LedgerError(f"call {call_id!a} cannot have used {written_bytes} and {output_bytes} bytes")
        cost = self._under_way(call_id)
        taken = Cost(tool=cost.tool, written_bytes=written_bytes)
        ledger = self._next(
            used=self._charged(self.used, taken, 1, output_bytes=output_bytes),
            reserved=self._charged(self.reserved, cost, -1),
            under_way=self._without(call_id),
        )
        return Settlement(
            ledger=ledger, overspends=tuple(_overspends(ledger, cost, written_bytes, output_bytes))
        )

    def release(self, call_id: str) -> Ledger:
        """Give back what was reserved for a call that never ran.

        Raises:
            LedgerError: The call is not under way.
        """
        cost = self._under_way(call_id)
        return self._next(reserved=self._charged(self.reserved, cost, -1), under_way=self._without(call_id))

    def note_attempt(self) -> Ledger:
        """Count a call that was asked for, whatever becomes of it."""
        return self._next(attempts=1)

    def note_violations(self, n: int = 1) -> Ledger:
        """Count rules that were broken or tried.

        Raises:
            LedgerError: ``n`` is negative.
        """
        if n < 0:
            raise LedgerError(f"violations are never taken back: {n}")
        return self._next(violations=n)

    def remaining(self, *, now_seconds: float) -> Remaining:
        """Say what is left, with what is reserved taken off."""
        budget, used, reserved = self.budget, self.used.tools, self.reserved.tools
        elapsed = max(0.0, now_seconds - self.started_seconds)
        return Remaining(
            tools={
                tool: most - used.get(tool, 0) - reserved.get(tool, 0) for tool, most in budget.tools.items()
            },
            groups={name: self._group_left(name) for name in budget.groups},
            calls=None if budget.calls is None else budget.calls - self._calls(),
            wall_seconds=max(0.0, budget.wall_time_seconds - elapsed),
            output_bytes=max(0, budget.output_bytes - self.used.output_bytes),
            written_bytes=max(0, self._written_left()),
            violations=max(0, budget.violations - self.violations),
        )

    def _shortages(self, cost: Cost) -> list[Reason]:
        """Name what a reservation would overdraw: everything but time, output and violations."""
        budget, found = self.budget, []
        if self._tool_left(cost.tool) < 1:
            found.append(_short(_tool_code(cost.tool), _shown(cost.tool), 0, budget.tools.get(cost.tool, 0)))
        found.extend(
            _short(f"budget.groups.{name}", f"group {name}", 0, budget.groups[name].calls)
            for name in self.groups_by_tool.get(cost.tool, ())
            if self._group_left(name) < 1
        )
        if budget.calls is not None and self._calls() >= budget.calls:
            found.append(_short("budget.calls", "calls", 0, budget.calls))
        left = self._written_left()
        if cost.written_bytes and cost.written_bytes > left:
            of = f"{max(0, left)} of {budget.written_bytes} bytes left"
            found.append(
                Reason(code="budget.written", detail=f"written: {cost.written_bytes} asked for, {of}")
            )
        return found

    def _tool_left(self, tool: str) -> int:
        return (
            self.budget.tools.get(tool, 0) - self.used.tools.get(tool, 0) - self.reserved.tools.get(tool, 0)
        )

    def _group_left(self, name: str) -> int:
        return (
            self.budget.groups[name].calls - self.used.groups.get(name, 0) - self.reserved.groups.get(name, 0)
        )

    def _calls(self) -> int:
        return self.used.calls + self.reserved.calls

    def _written_left(self) -> int:
        return self.budget.written_bytes - self.used.written_bytes - self.reserved.written_bytes

    def _under_way(self, call_id: str) -> Cost:
        cost = self.under_way.get(call_id)
        if cost is None:
            raise LedgerError(f"call {call_id!a} is not under way")
        return cost

    def _without(self, call_id: str) -> Mapping[str, Cost]:
        if len(self.under_way) == 1:
            return _NO_CALLS
        others = {other: cost for other, cost in self.under_way.items() if other != call_id}
        return MappingProxyType(others)

    def _next(
        self,
        *,
        used: Usage | None = None,
        reserved: Usage | None = None,
        under_way: Mapping[str, Cost] | None = None,
        attempts: int = 0,
        violations: int = 0,
    ) -> Ledger:
        """Give the ledger with these sums in place of its own, and so many more attempts and violations."""
        return Ledger(
            budget=self.budget,
            started_seconds=self.started_seconds,
            used=self.used if used is None else used,
            reserved=self.reserved if reserved is None else reserved,
            under_way=self.under_way if under_way is None else under_way,
            attempts=self.attempts + attempts,
            violations=self.violations + violations,
            groups_by_tool=self.groups_by_tool,
        )

    def _charged(self, usage: Usage, cost: Cost, calls: int, *, output_bytes: int = 0) -> Usage:
        """Add one call to the sums, or with ``calls`` -1 take it off."""
        groups = self.groups_by_tool.get(cost.tool, ())
        return Usage(
            tools=MappingProxyType({**usage.tools, cost.tool: usage.tools.get(cost.tool, 0) + calls}),
            groups=_added(usage.groups, groups, calls) if groups else usage.groups,
            calls=usage.calls + calls,
            written_bytes=usage.written_bytes + calls * cost.written_bytes,
            output_bytes=usage.output_bytes + output_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """The next ledger, and where the call used more than was left for it."""

    ledger: Ledger
    overspends: tuple[Reason, ...]


def _overspends(ledger: Ledger, cost: Cost, written_bytes: int, output_bytes: int) -> Iterator[Reason]:
    """Name what the call just settled took beyond the budget; what was reserved for it was its to use."""
    budget = ledger.budget
    written = ledger.used.written_bytes + ledger.reserved.written_bytes
    if written_bytes > cost.written_bytes and written > budget.written_bytes:
        yield _over("written", written, budget.written_bytes)
    if output_bytes and ledger.used.output_bytes > budget.output_bytes:
        yield _over("output", ledger.used.output_bytes, budget.output_bytes)


def _added(sums: Mapping[str, int], names: tuple[str, ...], calls: int) -> Mapping[str, int]:
    return MappingProxyType({**sums, **{name: sums.get(name, 0) + calls for name in names}})


def _over(what: str, taken: int, budget: int) -> Reason:
    return Reason(code="budget.overspent", detail=f"{what}: {taken} of {budget} bytes taken")


def _short(code: str, what: str, left: int, of: int, unit: str = "") -> Reason:
    return Reason(code=code, detail=f"{what}: {left} of {of}{unit} left")


def _tool_code(tool: str) -> str:
    # A tool's name may be the model's invention: only a plain one becomes part of a code.
    return f"budget.tools.{tool}" if _is_plain(tool) else "budget.tools.*"


def _shown(tool: str) -> str:
    return tool if _is_plain(tool) else ascii(tool[:60])


def _is_plain(tool: str) -> bool:
    return len(tool) <= 64 and tool.isascii() and tool.isidentifier()

"""A remit within a remit: what a task asks for, held to what it may be given.

Numbers become the smaller of the two, duties (``deny``, ``protect``, approval, checks, tripwires) those of
both. What cannot be cut to size is refused: a read or write glob that the parent's do not surely cover,
another workspace, kind or route. ``surely`` is judged glob by glob; a child that spreads over several of the
parent's globs must name them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from pydantic import ValidationError

from budgets.budget import Budget, Group
from budgets.contract import Remit, SandboxRules, ScopeRules
from budgets.glob import glob_covers
from budgets.problem import Problem, RemitInvalid, show
from budgets.refusal import problems_of
from budgets.route import Route

_SOURCE: Final = "narrowed remit"
_SMALLER_IN_SANDBOX: Final = (
    *("memory", "cpus", "cpu_time", "pids", "disk", "inodes", "tmp", "files", "file_size"),
    *("command_timeout", "command_output", "output_limit"),
)
_COMMIT_ORDER: Final[tuple[Literal["never", "on_pass", "always"], ...]] = ("never", "on_pass", "always")


def narrow(parent: Remit, child: Remit) -> Remit:
    """Give the remit that holds the child to the parent: it allows nothing that either of them denies.

    Raises:
        RemitInvalid: The child asks for something that cannot be cut to size.
    """
    if problems := list(_disagreements(parent, child)):
        raise RemitInvalid(_SOURCE, problems)
    try:
        return Remit(
            version=child.version,
            task=child.task,
            route=_route(parent.route, child.route),
            sandbox=_sandbox(parent.sandbox, child.sandbox),
            scope=_scope(parent.scope, child.scope),
            budget=_budget(parent.budget, child.budget),
            approve=_both(parent.approve, child.approve),
            tripwires=_both(parent.tripwires, child.tripwires),
            checks=(*parent.checks, *(check for check in child.checks if check not in parent.checks)),
            commit=next(when for when in _COMMIT_ORDER if when in {parent.commit, child.commit}),
        )
    except ValidationError as error:
        raise RemitInvalid(_SOURCE, problems_of(error)) from error


def _disagreements(parent: Remit, child: Remit) -> Iterator[Problem]:
    for where, ours, theirs in (
        ("sandbox.kind", parent.sandbox.kind, child.sandbox.kind),
        ("scope.workspace", parent.scope.workspace, child.scope.workspace),
        ("scope.mount", parent.scope.mount, child.scope.mount),
    ):
        if ours != theirs:
            yield _unlike(where, ours, theirs)
    for where, outer, inner in (
        ("sandbox.runtime", parent.sandbox.runtime, child.sandbox.runtime),
        ("sandbox.image", parent.sandbox.image, child.sandbox.image),
        ("route.provider", *_names(parent.route, child.route, "provider")),
        ("route.model", *_names(parent.route, child.route, "model")),
    ):
        if outer is not None and inner is not None and outer != inner:
            yield _unlike(where, outer, inner)
    guarded = _both(parent.scope.protect, child.scope.protect)
    yield from _uncovered("scope.read", parent.scope.read, child.scope.read, ())
    yield from _uncovered("scope.write", parent.scope.write, child.scope.write, guarded)


def _unlike(where: str, outer: str, inner: str) -> Problem:
    return Problem(line=0, where=where, message=f"the parent has {show(outer)}", seen=show(inner))


def _names(outer: Route | None, inner: Route | None, name: str) -> tuple[str | None, str | None]:
    return (getattr(outer, name, None), getattr(inner, name, None))


def _uncovered(
    where: str, outer: tuple[str, ...], inner: tuple[str, ...], guarded: tuple[str, ...]
) -> Iterator[Problem]:
    for glob in inner:
        # The very glob of the parent lifts the same protection there.
        if glob not in outer and not any(glob_covers(wide, glob, guarded=guarded) for wide in outer):
            yield Problem(
                line=0, where=where, message="no glob of the parent surely covers this one", seen=show(glob)
            )


def _both(outer: tuple[str, ...], inner: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*outer, *inner)))


def _route(outer: Route | None, inner: Route | None) -> Route | None:
    if outer is None or inner is None:
        return outer or inner
    return Route(
        provider=outer.provider or inner.provider,
        model=outer.model or inner.model,
        fallback="forbid" if "forbid" in {outer.fallback, inner.fallback} else "allow",
    )


def _sandbox(outer: SandboxRules, inner: SandboxRules) -> SandboxRules:
    smaller = {name: min(getattr(outer, name), getattr(inner, name)) for name in _SMALLER_IN_SANDBOX}
    return inner.model_copy(
        update={
            **smaller,
            "runtime": outer.runtime or inner.runtime,
            "image": outer.image or inner.image,
            "lifetime": "call" if "call" in {outer.lifetime, inner.lifetime} else "task",
        }
    )


def _scope(outer: ScopeRules, inner: ScopeRules) -> ScopeRules:
    return ScopeRules(
        workspace=inner.workspace,
        mount=inner.mount,
        read=inner.read,
        write=inner.write,
        deny=_both(outer.deny, inner.deny),
        protect=_both(outer.protect, inner.protect),
        growth="refuse" if "refuse" in {outer.growth, inner.growth} else "record",
    )


def _budget(outer: Budget, inner: Budget) -> Budget:
    calls = [number for number in (outer.calls, inner.calls) if number is not None]
    return Budget(
        tools={tool: min(count, outer.tools.get(tool, 0)) for tool, count in inner.tools.items()},
        groups=_groups(outer.groups, inner.groups),
        calls=min(calls, default=None),
        wall_time_seconds=min(outer.wall_time_seconds, inner.wall_time_seconds),
        output_bytes=min(outer.output_bytes, inner.output_bytes),
        written_bytes=min(outer.written_bytes, inner.written_bytes),
        violations=min(outer.violations, inner.violations),
    )


def _groups(outer: Mapping[str, Group], inner: Mapping[str, Group]) -> dict[str, Group]:
    shared = {
        name: Group(
            tools=_both(outer[name].tools, inner[name].tools), calls=min(outer[name].calls, inner[name].calls)
        )
        for name in outer.keys() & inner.keys()
    }
    return {**outer, **inner, **shared}

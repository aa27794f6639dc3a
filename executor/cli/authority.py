"""What a remit comes to, in words, and what its author may not have meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from budgets.contract import Remit
from budgets.protect import DEFAULT_PROTECT
from executor.cli.amounts import duration_text, size_text
from executor.cli.text import plural
from executor.tools.registry import TOOLS

_WRITERS = ("write_file", "patch")
_READERS = ("read_file", "search_files", "list_files")


def authority(remit: Remit) -> list[tuple[str, str]]:
    """Say in rows of topic and sentence what the remit allows."""
    return [
        ("task", f"{remit.task.id}, class {remit.task.class_}"),
        ("tools", _tools(remit)),
        *(
            (f"  {name}", f"{plural(group.calls, 'call')} together: {', '.join(group.tools)}")
            for name, group in remit.budget.groups.items()
        ),
        ("in all", _totals(remit)),
        ("workspace", f"{remit.scope.workspace}, seen as {remit.scope.mount}"),
        ("reads", _globs(remit.scope.read)),
        ("writes", _globs(remit.scope.write)),
        ("denied", _denied(remit)),
        ("protected", _protected(remit)),
        *_commands(remit),
        ("sandbox", _sandbox(remit)),
        ("approval", _approval(remit)),
        ("route", _route(remit)),
        *(("tripwire", path) for path in remit.tripwires),
        *(("check", check.label) for check in remit.checks),
        ("after", _AFTER[remit.commit]),
    ]


def remarks(remit: Remit, *, base: Path) -> list[str]:
    """Name what is valid and probably not meant; nothing of it changes what is allowed."""
    return [*_useless_tools(remit), *_loose_ends(remit, base)]


_AFTER = {
    "never": "changes are kept with the run; `remit apply` takes them, `remit discard` throws them away",
    "on_pass": "changes go into the workspace when the verdict is pass",
    "always": "changes go into the workspace whatever the verdict",
}


def _tools(remit: Remit) -> str:
    given = [f"{name} {count}" for name in TOOLS if (count := remit.budget.tools.get(name, 0)) > 0]
    return f"{', '.join(given)}; no other" if given else "none"


def _totals(remit: Remit) -> str:
    budget = remit.budget
    parts = [
        plural(budget.calls, "call") if budget.calls is not None else "",
        duration_text(budget.wall_time_seconds),
        f"{size_text(budget.output_bytes)} shown to the model",
        f"{size_text(budget.written_bytes)} written",
        f"stopped at violation {budget.violations}",
    ]
    return ", ".join(part for part in parts if part)


def _globs(patterns: Sequence[str]) -> str:
    if not patterns:
        return "nothing"
    return "everything" if "**" in patterns else ", ".join(patterns)


def _denied(remit: Remit) -> str:
    return (
        f"{', '.join(remit.scope.deny)}: by no tool, terminal included"
        if remit.scope.deny
        else "nothing more"
    )


def _protected(remit: Remit) -> str:
    own = [pattern for pattern in remit.scope.protect if pattern not in DEFAULT_PROTECT]
    count = len(remit.scope.protect) - len(own)
    built_in = (
        f"{count} built-in names (.git, agent and editor settings, shell start files, …)" if count else ""
    )
    return ", ".join([*own, *([built_in] if built_in else [])]) or "nothing"


def _commands(remit: Remit) -> Iterator[tuple[str, str]]:
    if remit.budget.tools.get("terminal", 0) > 0:
        longest = duration_text(remit.sandbox.command_timeout)
        sight = "they see the whole workspace but what is denied"
        yield (
            "commands",
            f"at most {longest} each; {sight}; a change beyond `writes` is {_GROWTH[remit.scope.growth]}",
        )


_GROWTH = {
    "record": "recorded as growth: the verdict is then mixed at best",
    "refuse": "refused, with all else that the call changed",
}


def _sandbox(remit: Remit) -> str:
    rules = remit.sandbox
    limits = (
        f"{size_text(rules.memory)} of memory, {plural(rules.cpus, 'processor')}, {rules.pids} processes, "
        f"{size_text(rules.disk)} of changes"
    )
    life = "one for the task" if rules.lifetime == "task" else "a fresh one for each call"
    return f"{rules.kind}, {life}, no network, {limits}"


def _approval(remit: Remit) -> str:
    return f"asked for each call of {', '.join(remit.approve)}" if remit.approve else "not asked for"


def _route(remit: Remit) -> str:
    if remit.route is None:
        return "not judged"
    names = "/".join(name for name in (remit.route.provider, remit.route.model) if name)
    return f"{names} must have answered, fallback {remit.route.fallback}"


def _useless_tools(remit: Remit) -> Iterator[str]:
    given = {name for name, count in remit.budget.tools.items() if count > 0}
    if not given:
        yield "budget.tools gives no tool a call: everything will be denied"
    for name in sorted(given & set(_WRITERS)):
        if not remit.scope.write:
            yield f"{name} has calls, and scope.write is empty: each will be denied"
    for name in sorted(given & set(_READERS)):
        if not remit.scope.read:
            yield f"{name} has calls, and scope.read is empty: each will be denied"
    if remit.scope.write and not given & {*_WRITERS, "terminal"}:
        yield "scope.write names paths, and no tool that writes has a call"
    for group, rules in remit.budget.groups.items():
        if not given & set(rules.tools):
            yield f"budget.groups.{group}: none of its tools has a call of its own"


def _loose_ends(remit: Remit, base: Path) -> Iterator[str]:
    budget = remit.budget
    calls = sum(budget.tools.values())
    if budget.calls is not None and budget.calls > calls:
        yield f"budget.calls is {budget.calls}, and the tools have only {calls} together"
    if not remit.checks:
        yield "there are no checks: only the process will be judged, not the result"
    if remit.approve:
        yield "approve: `remit replay` and `remit mcp` have nobody to ask; those calls will be denied"
    for path in remit.tripwires:
        if not Path(path).expanduser().exists():
            yield f"tripwires: {path} does not exist now; its appearance will count as a change"
    if not (base / Path(remit.scope.workspace).expanduser()).is_dir():
        yield f"scope.workspace: {remit.scope.workspace} is not a directory"

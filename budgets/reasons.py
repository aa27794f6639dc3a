"""The one registry of reason codes: whatever a denial, an error or a verdict says of itself is listed here.

A code is stable, an end of it that depends on the remit is a family: ``budget.tools.terminal`` belongs to
``budget.tools.*``. Its anchor is the heading in docs/verdicts.md, as GitHub and most renderers slug it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Severity = Literal["info", "low", "medium", "high", "critical"]
CodeScope = Literal["call", "verdict", "both"]

DOCUMENT: Final = "docs/verdicts.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why something was refused or went wrong; ``detail`` is for reading, ``code`` for deciding."""

    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasonCode:
    """What a code means, how bad it is, and where it is explained."""

    code: str
    severity: Severity
    sentence: str
    anchor: str
    scope: CodeScope


class UnknownReasonCodeError(LookupError):
    """A code that the registry does not hold."""

    def __init__(self, code: str) -> None:
        super().__init__(f"no such reason code: {code!r}")


def lookup(code: str) -> ReasonCode:
    """Find a code's entry; a member of a family finds the family's.

    Raises:
        UnknownReasonCodeError: Neither the code nor its family is registered.
    """
    entry = REGISTRY.get(code) or REGISTRY.get(_family(code))
    if entry is None:
        raise UnknownReasonCodeError(code)
    return entry


def _family(code: str) -> str:
    head, _, member = code.rpartition(".")
    return f"{head}.*" if member else code


def _anchor(code: str) -> str:
    return re.sub(r"[^\w-]", "", code)


# code, severity, scope, sentence
_TABLE: Final[tuple[tuple[str, Severity, CodeScope, str], ...]] = (
    ("tool.unknown", "medium", "call", "There is no tool of this name."),
    ("tool.unmapped", "medium", "call", "No profile maps this recorded tool to one of ours."),
    ("arguments.invalid", "low", "call", "The arguments do not fit the tool's schema."),
    ("scope.outside", "high", "call", "The path leaves the workspace."),
    ("scope.read", "medium", "call", "No read glob of the remit covers the path."),
    ("scope.write", "medium", "call", "No write glob of the remit covers the path."),
    ("scope.deny", "high", "call", "The remit denies the path to every tool."),
    ("scope.protect", "high", "call", "The path is protected and no write glob names it exactly."),
    ("scope.link", "high", "call", "A symbolic link on the way leads out of the workspace."),
    (
        "scope.growth",
        "high",
        "call",
        "The command changed more than the write globs cover, and the remit refuses growth.",
    ),
    (
        "budget.tools.*",
        "medium",
        "call",
        "The tool has no calls left; a tool that the remit does not name has none.",
    ),
    ("budget.groups.*", "medium", "call", "The group of tools has no calls left."),
    ("budget.calls", "medium", "call", "The run has no calls left."),
    ("budget.wall_time", "medium", "call", "The run's time is over."),
    ("budget.output", "medium", "call", "The run has given out all the output that it may."),
    ("budget.written", "medium", "call", "The call would write more bytes than are left."),
    ("budget.violations", "high", "call", "So many rules were broken that the run is stopped."),
    ("budget.overspent", "medium", "both", "A call that was allowed used more than was left for it."),
    ("approval.required", "info", "call", "The remit lets this tool run only after a person said yes."),
    ("approval.refused", "medium", "call", "A person said no."),
    ("approval.expired", "medium", "call", "Nobody said yes in time."),
    ("call.cancelled", "low", "call", "The client gave the call up before its end; it stays charged."),
    (
        "call.uncarried",
        "low",
        "call",
        "Something that the call left cannot be carried over to the next one; none of its changes was kept.",
    ),
    ("run.stopped", "high", "call", "The run was stopped from outside."),
    ("run.closed", "low", "call", "The run is over and takes no more calls."),
    ("audit.unavailable", "critical", "both", "The journal cannot be written, and nothing runs unrecorded."),
    ("file.not_found", "info", "call", "There is no such file."),
    ("file.is_directory", "info", "call", "The path is a directory."),
    ("file.not_directory", "info", "call", "A part of the path is not a directory."),
    ("file.not_regular", "low", "call", "The path is neither a regular file nor a directory."),
    ("file.symlink", "info", "call", "The path goes through a symbolic link; name its target instead."),
    ("file.permission", "info", "call", "The file's permissions forbid it."),
    ("file.exists", "info", "call", "The path is there already."),
    ("file.too_large", "info", "call", "The file is larger than the tool handles."),
    ("file.no_space", "low", "call", "The workspace has no room left."),
    ("file.name_too_long", "info", "call", "A name in the path is too long."),
    ("file.changed", "info", "call", "The file changed while the call was at work; nothing was written."),
    ("file.invalid_text", "info", "call", "The file is not text in UTF-8."),
    ("patch.no_match", "info", "call", "The text to replace does not occur in the file."),
    ("patch.ambiguous", "info", "call", "The text to replace occurs more than once."),
    ("patch.invalid", "info", "call", "The patch cannot be read."),
    ("search.invalid", "info", "call", "The search pattern cannot be read."),
    ("sandbox.start", "critical", "both", "The sandbox could not be started."),
    ("sandbox.died", "critical", "both", "The sandbox ended while it was needed."),
    ("sandbox.unresponsive", "critical", "both", "The sandbox did not answer in time and was killed."),
    (
        "sandbox.engine_lost",
        "critical",
        "both",
        "The engine that runs the sandbox cannot be reached.",
    ),
    (
        "sandbox.engine_unresponsive",
        "critical",
        "both",
        "The engine that runs the sandbox did not answer in time.",
    ),
    (
        "sandbox.integrity",
        "critical",
        "both",
        "The sandbox said something that nobody asked for and cannot be believed.",
    ),
    ("limit.wall", "low", "call", "The command ran out of time and was killed."),
    ("limit.memory", "low", "call", "The command used more memory than it may and was killed."),
    ("limit.pids", "low", "call", "The command started more processes than it may."),
    ("limit.output", "low", "call", "The command wrote more output than it may and was killed."),
    ("limit.disk", "low", "call", "The workspace's disk limit was reached."),
    ("limit.inodes", "low", "call", "The workspace's limit on the number of files was reached."),
    ("limit.size", "low", "call", "A file grew to the limit on the size of one file."),
    ("limit.cpu", "low", "call", "The command used more processor time than it may and was killed."),
    ("limit.fds", "low", "call", "The command opened more files than it may."),
    ("check.failed", "high", "verdict", "A check ended with another exit status than 0."),
    ("check.not_run", "medium", "verdict", "A check that the remit declares could not be run to its end."),
    (
        "checks.none",
        "info",
        "verdict",
        "The remit declares no checks: only the process was judged, not the artifact.",
    ),
    ("route.mismatch", "critical", "verdict", "Another provider or model answered than the remit names."),
    ("route.fallback", "high", "verdict", "A fallback answered, and the remit forbids fallbacks."),
    ("route.missing", "medium", "verdict", "Nothing shows which provider and model answered."),
    ("journal.broken", "critical", "verdict", "The journal's chain does not hold."),
    ("run.interrupted", "high", "verdict", "A call was allowed and its end never recorded."),
    ("tripwire.changed", "critical", "verdict", "A file that nothing in the run may touch has changed."),
    ("control.missing", "critical", "verdict", "A control that the sandbox was to hold did not hold."),
    ("call.unaccounted", "critical", "verdict", "Something ran that no decision allowed."),
    ("call.denied", "medium", "verdict", "A call was denied: a rule was tried."),
    ("growth.beyond_scope", "medium", "verdict", "The workspace changed where no write glob covers it."),
    ("growth.protected", "high", "verdict", "A denied or protected path of the workspace changed."),
)

REGISTRY: Final[Mapping[str, ReasonCode]] = MappingProxyType(
    {
        code: ReasonCode(code=code, severity=severity, sentence=sentence, anchor=_anchor(code), scope=scope)
        for code, severity, scope, sentence in _TABLE
    }
)

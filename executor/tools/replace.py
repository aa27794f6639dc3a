"""Replace one exact text in one file. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from budgets.reasons import Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplaceText:
    """One exact text in one file, replaced."""

    path: str
    old: str
    new: str
    replace_all: bool


def replace_text(operation: ReplaceText, text: str) -> str | Reason:
    """Put the new text in the place of the old one, which must stand there once unless all are meant."""
    old, new = operation.old, operation.new
    if old not in text and "\r\n" in text:
        old, new = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (old, new))
    count = text.count(old)
    if count == 0:
        return Reason(code="patch.no_match", detail=f"{operation.path}: old_string does not occur")
    if count > 1 and not operation.replace_all:
        detail = f"{operation.path}: old_string occurs {count} times; add context or set replace_all"
        return Reason(code="patch.ambiguous", detail=detail)
    return text.replace(old, new)

"""The remit as a text: read it, refuse it with every reason at once, write down what it comes to."""

from __future__ import annotations

import hashlib
import json
from typing import Final, cast

from pydantic import JsonValue

from budgets.budget import Budget, Group
from budgets.contract import Check, Remit, SandboxRules, ScopeRules, Task
from budgets.document import read_document
from budgets.narrow import narrow
from budgets.problem import Problem, RemitInvalid, show
from budgets.refusal import validate
from budgets.route import Route

__all__ = [
    "Budget",
    "Check",
    "Group",
    "Problem",
    "Remit",
    "RemitInvalid",
    "Route",
    "SandboxRules",
    "ScopeRules",
    "Task",
    "digest",
    "json_schema",
    "narrow",
    "parse",
    "to_document",
]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def parse(text: str, *, source: str) -> Remit:
    """Read a remit.

    Raises:
        RemitInvalid: The text is not a valid remit. Every problem has its line, the value seen and, where it
        can
            be guessed, what was meant.
    """
    document = read_document(text, source=source)
    if not isinstance(document.value, dict):
        problem = Problem(line=1, where="", message="a remit is a mapping of keys", seen=show(document.value))
        raise RemitInvalid(source, [*document.problems, problem])
    validation = validate(document)
    if validation.remit is None or document.problems:
        raise RemitInvalid(source, [*document.problems, *validation.problems])
    return validation.remit


def to_document(remit: Remit) -> dict[str, JsonValue]:
    """Write down the effective remit: every default filled in, sizes in bytes, times in seconds.

    ``parse`` reads its JSON to an equal remit.
    """
    return cast(
        "dict[str, JsonValue]", _plain(remit.model_dump(mode="json", by_alias=True, exclude_none=True))
    )


def digest(remit: Remit) -> str:
    """Name the effective remit by the SHA-256 of its canonical JSON (RFC 8785), as ``sha256:…``."""
    # Keys are ASCII and numbers are whole or have at most three decimals, where json agrees with RFC 8785.
    text = json.dumps(
        to_document(remit), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def json_schema() -> dict[str, JsonValue]:
    """Give the JSON Schema (2020-12) of a remit, for editors. ``parse`` checks more than a schema can say."""
    schema = cast("dict[str, JsonValue]", _untitled(Remit.model_json_schema(by_alias=True)))
    return {"$schema": _DIALECT, "title": "remit", **schema}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _untitled(value: object) -> object:
    """Leave out the titles, which repeat the keys."""
    if isinstance(value, dict):
        return {
            key: _untitled(item) for key, item in value.items() if key != "title" or not isinstance(item, str)
        }
    return [_untitled(item) for item in value] if isinstance(value, list) else value

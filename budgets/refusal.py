"""Validate a document as a remit, and say what is wrong in the words of its author's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from budgets.budget import Budget, Group
from budgets.contract import Check, Remit, SandboxRules, ScopeRules, Task
from budgets.document import Document, KeyPath, dotted
from budgets.problem import Problem, show
from budgets.route import Route

# Where keys are looked up; "*" is a name or a number that the author chose.
_SECTIONS: Final[Mapping[tuple[str, ...], type[BaseModel]]] = MappingProxyType(
    {
        (): Remit,
        ("task",): Task,
        ("route",): Route,
        ("sandbox",): SandboxRules,
        ("scope",): ScopeRules,
        ("budget",): Budget,
        ("budget", "groups", "*"): Group,
        ("checks", "*"): Check,
    }
)
_MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "this key is missing",
        "extra_forbidden": "unknown key",
        "int_type": "a whole number is needed",
        "string_type": "a text is needed",
        "dict_type": "a mapping of keys is needed",
        "mapping_type": "a mapping of keys is needed",
        "model_type": "a mapping of keys is needed",
        "tuple_type": "a list is needed",
        "greater_than_equal": "the number must be at least {ge}",
        "less_than_equal": "the number must be at most {le}",
        "literal_error": "this must be {expected}",
        "too_short": "at least {min_length} is needed",
        "string_too_short": "the text is empty",
        "string_too_long": "the text has more than {max_length} characters",
        "string_pattern_mismatch": "the text does not have the form {pattern}",
    }
)
# Without these a rule between keys would be judged by a default that the author did not mean.
_DECISIVE: Final[frozenset[KeyPath]] = frozenset({("sandbox", "kind"), ("sandbox", "lifetime")})
_MORE_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "version": "write `version: 1`",
        "task.id": "letters, digits, '.', '_' and '-', at most 64 and the first a letter or digit",
        "task.class": "letters, digits, '_' and '-', at most 64 and the first a letter",
        "task": "write `task: {id: a-name}`",
        "scope": "write `scope: {workspace: ./a-directory}`",
        "scope.workspace": "write `workspace: ./a-directory`",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """The remit, or everything that keeps a document from being one."""

    remit: Remit | None
    problems: tuple[Problem, ...]


def validate(document: Document) -> Validation:
    """Check a document's values against the contract's sections and rules."""
    try:
        return Validation(remit=_remit(document.value), problems=())
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = [
        _problem(detail, document) for detail in (*details, *_rules_hidden_by(details, document.value))
    ]
    return Validation(remit=None, problems=tuple(problems))


def problems_of(error: ValidationError) -> tuple[Problem, ...]:
    """Tell the problems of a remit that was never a text."""
    nowhere = Document(value=None, lines=MappingProxyType({(): 0}), problems=())
    return tuple(_problem(detail, nowhere) for detail in error.errors(include_url=False))


def _remit(value: object) -> Remit:
    return Remit.model_validate(value, by_alias=True, by_name=False)


def _rules_hidden_by(details: Sequence[ErrorDetails], value: object) -> list[ErrorDetails]:
    """Find the broken rules between keys, which are looked at only once each key by itself is well."""
    wrong = {_path(detail) for detail in details}
    hidden: list[ErrorDetails] = []
    while not wrong & _DECISIVE:
        try:
            _remit(_without(value, wrong, ()))
        except ValidationError as error:
            found = error.errors(include_url=False)
        else:
            break
        new = [detail for detail in found if _is_between_keys(detail) and _path(detail) not in wrong]
        if not new:
            break
        hidden += new
        wrong |= {_path(detail) for detail in new}
    return hidden


def _is_between_keys(detail: ErrorDetails) -> bool:
    return bool(detail.get("ctx", {}).get("at"))


def _without(value: object, wrong: set[KeyPath], path: KeyPath) -> object:
    if isinstance(value, dict):
        return {
            key: _without(item, wrong, (*path, key))
            for key, item in value.items()
            if (*path, key) not in wrong
        }
    if isinstance(value, list):
        return [
            _without(item, wrong, (*path, at)) for at, item in enumerate(value) if (*path, at) not in wrong
        ]
    return value


def _problem(detail: ErrorDetails, document: Document) -> Problem:
    path = _path(detail)
    context = detail.get("ctx", {})
    template = _MESSAGES.get(detail["type"])
    return Problem(
        line=document.line_of(path),
        where=dotted(path),
        message=detail["msg"] if template is None else template.format(**context),
        seen=None if _says_enough(detail) else show(detail["input"]),
        hint=context.get("hint") or _hint(detail, path),
    )


def _path(detail: ErrorDetails) -> KeyPath:
    at: tuple[str, ...] = detail.get("ctx", {}).get("at", ())
    # pydantic marks an error of a mapping's key so.
    inner = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
    return (*inner, *at)


def _says_enough(detail: ErrorDetails) -> bool:
    return detail["type"] in {"missing", "extra_forbidden"} or _is_between_keys(detail)


def _hint(detail: ErrorDetails, path: KeyPath) -> str | None:
    if detail["type"] == "extra_forbidden":
        return _key_hint(path)
    expected = detail.get("ctx", {}).get("expected")
    if isinstance(expected, str):
        choices = [choice.strip("'") for choice in expected.replace(" or ", ", ").split(", ")]
        return _did_you_mean(str(detail["input"]), choices)
    return _MORE_HINTS.get(dotted(path)) if detail["type"] in {"missing", "string_pattern_mismatch"} else None


def _key_hint(path: KeyPath) -> str:
    *above, key = path
    here = _keys(_SECTIONS[_shape(above)])
    if hint := _did_you_mean(str(key), here):
        return hint
    elsewhere = [
        ".".join(shape) for shape, model in _SECTIONS.items() if "*" not in shape and key in _keys(model)
    ]
    if elsewhere:
        return f"{key} belongs under {elsewhere[0] or 'no other key'}"
    return f"keys here are {', '.join(here)}"


def _shape(path: Sequence[str | int]) -> tuple[str, ...]:
    names = tuple(part if isinstance(part, str) else "*" for part in path)
    return ("budget", "groups", "*") if names[:2] == ("budget", "groups") else names


def _keys(model: type[BaseModel]) -> list[str]:
    return [str(field.validation_alias or name) for name, field in model.model_fields.items()]


def _did_you_mean(seen: str, choices: Sequence[str]) -> str | None:
    close = get_close_matches(seen.lower(), choices, n=1)
    return f"did you mean {close[0]}?" if close else None

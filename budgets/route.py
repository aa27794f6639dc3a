"""Who must have answered a run's turns, and whether the evidence shows it.

A model's word about itself is evidence of tier 0, which is none. Names are compared exactly, never by prefix:
``glm-5.2`` is not ``glm-5.2-air``, and a gateway's alias is another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from budgets.reasons import Reason

EvidenceTier = Literal[0, 1, 2, 3, 4]
RouteName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]+$")]


class Route(BaseModel):
    """Who must have answered every turn of a model; leave it out when no model is in play."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    provider: RouteName | None = Field(
        default=None, description="Provider that must have served every turn, by its exact name."
    )
    model: RouteName | None = Field(
        default=None, description="Model that must have served every turn, by its exact name."
    )
    fallback: Literal["forbid", "allow"] = Field(
        default="forbid", description="Whether a turn may have been served after a fallback."
    )

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.provider is None and self.model is None:
            raise PydanticCustomError(
                "route_empty",
                "a route that names neither provider nor model asks for nothing",
                {"hint": "name at least one of them, or leave route out"},
            )
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteEvidence:
    """What one source says about who served one turn.

    Attributes:
        turn: Counted from 0.
        tier: 0 the model's own text, 1 the agent's log, 2 a gateway's headers, 3 a recording proxy, 4 the
            provider, asked out of band.
        record: The journal record that holds it, where there is one.
    """

    turn: int
    tier: EvidenceTier
    source: str
    requested_model: str | None
    served_provider: str | None
    served_model: str | None
    fallback: bool
    record: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteFinding:
    """One thing wrong with the route, and the journal records that show it."""

    reason: Reason
    records: tuple[int, ...]


def match(route: Route, evidence: Sequence[RouteEvidence], turns: int) -> tuple[Reason, ...]:
    """Name everything that keeps the evidence from showing this route for all turns."""
    return tuple(finding.reason for finding in findings(route, evidence, turns))


def findings(route: Route, evidence: Sequence[RouteEvidence], turns: int) -> tuple[RouteFinding, ...]:
    """Do as ``match`` does, and keep which records each finding rests on.

    Every piece of evidence counts: one that contradicts the route is not outweighed by another that agrees.
    A run without a turn shows no route.
    """
    believed = [piece for piece in evidence if piece.tier > 0]
    found = [
        *_grouped(
            "route.mismatch", [(piece, problem) for piece in believed if (problem := _mismatch(route, piece))]
        ),
        *_grouped("route.fallback", [(piece, "fallback") for piece in believed if _fell_back(route, piece)]),
    ]
    if missing := _missing(route, believed, turns):
        found.append(RouteFinding(reason=Reason(code="route.missing", detail=missing), records=()))
    return tuple(found)


def _mismatch(route: Route, piece: RouteEvidence) -> str:
    pairs = (
        ("provider", route.provider, piece.served_provider),
        ("model", route.model, piece.served_model),
    )
    return ", ".join(
        f"{what} {served!a} instead of {wanted!a}"
        for what, wanted, served in pairs
        if wanted is not None and served is not None and served != wanted
    )


def _fell_back(route: Route, piece: RouteEvidence) -> bool:
    return route.fallback == "forbid" and piece.fallback


def _grouped(code: str, pieces: Sequence[tuple[RouteEvidence, str]]) -> list[RouteFinding]:
    by_problem: dict[str, list[RouteEvidence]] = {}
    for piece, problem in pieces:
        by_problem.setdefault(f"{problem}, says {piece.source}", []).append(piece)
    return [
        RouteFinding(
            reason=Reason(code=code, detail=f"{problem} ({_turns(sorted({piece.turn for piece in group}))})"),
            records=tuple(sorted({piece.record for piece in group if piece.record is not None})),
        )
        for problem, group in by_problem.items()
    ]


def _missing(route: Route, believed: Sequence[RouteEvidence], turns: int) -> str:
    if turns <= 0:
        return "no turn of a model was seen"
    wanted = [
        name for name, value in (("provider", route.provider), ("model", route.model)) if value is not None
    ]
    parts = []
    for name in wanted:
        shown = {piece.turn for piece in believed if getattr(piece, f"served_{name}") is not None}
        unseen = [turn for turn in range(turns) if turn not in shown]
        if unseen:
            parts.append(f"nothing shows the {name} ({_turns(unseen)})")
    return "; ".join(parts)


def _turns(turns: Sequence[int]) -> str:
    listed = ", ".join(str(turn) for turn in turns[:5])
    more = f" and {len(turns) - 5} more" if len(turns) > 5 else ""
    return f"turn {listed}{more}"

"""How much a run may use, what one call costs, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    WrapSerializer,
)

from budgets.quantity import Duration, Size
from budgets.toolname import ToolName, ToolNames

_Value = TypeVar("_Value")
MAX_COUNT: Final = 1_000_000_000

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


def _frozen(mapping: Mapping[str, _Value]) -> Mapping[str, _Value]:
    return MappingProxyType(dict(mapping))


def _thawed(mapping: Mapping[str, object], handler: SerializerFunctionWrapHandler) -> object:
    return handler(dict(mapping))


class Group(BaseModel):
    """Several tools that share a number of calls, besides what each of them has."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tools: Annotated[ToolNames, Field(min_length=1)] = Field(description="Tools that share the calls.")
    calls: Count = Field(description="Calls that they have together.")


class Budget(BaseModel):
    """The most that a run may use. A tool that is not named gets no calls."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_by_name=True, validate_by_alias=True
    )

    tools: Annotated[Mapping[ToolName, Count], AfterValidator(_frozen), WrapSerializer(_thawed)] = Field(
        default_factory=dict,
        validate_default=True,
        description="Calls of each tool; one that is not named gets none.",
    )
    groups: Annotated[Mapping[GroupName, Group], AfterValidator(_frozen), WrapSerializer(_thawed)] = Field(
        default_factory=dict,
        validate_default=True,
        description="Named groups of tools that share a number of calls.",
    )
    calls: Count | None = Field(
        default=None, description="Calls of all tools together; without it the tools' own numbers hold."
    )
    wall_time_seconds: Duration = Field(
        default=3600.0,
        validation_alias="wall_time",
        serialization_alias="wall_time",
        description="From the start of the run; after it no call is allowed.",
    )
    output_bytes: Size = Field(
        default=1024 * 1024,
        validation_alias="output",
        serialization_alias="output",
        description="Output of tools that the model is given, all together.",
    )
    written_bytes: Size = Field(
        default=64 * 1024 * 1024,
        validation_alias="written",
        serialization_alias="written",
        description="Bytes that calls may write to the workspace, all together.",
    )
    violations: Annotated[int, Field(ge=1, le=MAX_COUNT)] = Field(
        default=3, description="The run is stopped when so many rules were broken or tried."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one call is charged before it runs. Output and a command's writes are known only afterwards."""

    tool: str
    written_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Sums over some calls; a tool or group that is not named has 0."""

    tools: Mapping[str, int]
    groups: Mapping[str, int]
    calls: int = 0
    written_bytes: int = 0
    output_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Remaining:
    """What is left at one moment, with what is reserved for calls under way taken off. Never negative."""

    tools: Mapping[str, int]
    groups: Mapping[str, int]
    calls: int | None
    wall_seconds: float
    output_bytes: int
    written_bytes: int
    violations: int

    def to_json(self) -> dict[str, JsonValue]:
        """Give what a model and a client are told with every outcome."""
        return {
            "tools": {**self.tools},
            "groups": {**self.groups},
            "calls": self.calls,
            "wall_seconds": round(self.wall_seconds, 3),
            "output_bytes": self.output_bytes,
            "written_bytes": self.written_bytes,
            "violations": self.violations,
        }

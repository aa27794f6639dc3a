"""What a model asks for, and what it would touch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

__all__ = ["Access", "Effects", "JsonValue", "PathUse", "ToolCall"]

Access = Literal["read", "write"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """One request to run a tool, as it came through a door.

    Attributes:
        id: Ours, unique within the run.
        source: The door it came through.
        client_call_id: The client's own id, by which a re-issued call is known again.
    """

    id: str
    tool: str
    arguments: Mapping[str, JsonValue]
    source: str = "library"
    client_call_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PathUse:
    """A path as the model gave it, and what would be done to it."""

    path: str
    access: Access


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """What a call declares it would touch, before anything runs.

    A command declares no paths of its own: the sandbox holds what it may touch, and what it did touch is
    checked afterwards.
    """

    paths: tuple[PathUse, ...] = ()
    written_bytes: int = 0
    runs_command: bool = False

"""Which of our tools a recorded call is, with which arguments; what nothing maps to is never skipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, get_args

from budgets.call import JsonValue
from budgets.reasons import Reason
from executor.errors import ExecutorError
from executor.recordings.conversions import Draft, NoCounterpart
from executor.recordings.profiles import PROFILES, PROFILES_OF_FORMAT, Profile, ProfileName, Rule
from executor.recordings.recording import FormatName, RecordedCall
from executor.tools.registry import TOOLS

PROFILE_NAMES: Final[tuple[ProfileName, ...]] = get_args(ProfileName)
_SERVER_PROFILE: Final = "mcp:"
_SHOWN_CHARACTERS: Final = 200


class MapInvalid(ExecutorError):
    """A ``--map`` or ``--profile`` that says nothing usable; ``hint`` shows one that would."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MappedCall:
    """A recorded call as one of ours; ``via`` is the profile or map that said so."""

    tool: str
    arguments: Mapping[str, JsonValue]
    via: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmapped:
    """A recorded call that is none of ours, to be denied: ``tool.unmapped`` or ``arguments.invalid``.

    Attributes:
        tool: Our name where one is known, else the recorded one.
        arguments: What was recorded; its raw text under ``raw_arguments`` where that is no JSON object.
    """

    tool: str
    arguments: Mapping[str, JsonValue]
    reason: Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class UserMap:
    """One ``--map``: a recorded name, our tool, and our names for arguments; others keep theirs.

    Attributes:
        renames: Our name by recorded name; None leaves the argument out.
    """

    recorded: str
    tool: str
    renames: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolMap:
    """The user's maps first, then MCP names, then profiles in order.

    Attributes:
        servers: MCP servers whose tools appear as ``<server>_<tool>`` or ``mcp_<server>_<tool>``.
    """

    profiles: tuple[ProfileName, ...]
    servers: tuple[str, ...] = ()
    maps: tuple[UserMap, ...] = ()

    def map(self, call: RecordedCall) -> MappedCall | Unmapped:
        """Say which of our tools the call is, or why it is none."""
        if call.arguments is None:
            return self._malformed(call)
        for user_map in self.maps:
            if user_map.recorded == call.tool:
                return _by_user(user_map, call.arguments)
        served = self._served_tool(call.tool)
        if served is not None:
            return MappedCall(tool=served, arguments=call.arguments, via="mcp")
        return self._by_profile(call, call.arguments)

    def _by_profile(self, call: RecordedCall, arguments: Mapping[str, JsonValue]) -> MappedCall | Unmapped:
        known = list(self._rules(call.tool, arguments))
        if not known:
            return _unmapped(call.tool, arguments, f"nothing maps {_shown(call.tool)} to a tool of ours")
        chosen = next((each for each in known if _unknown_arguments(each[1], arguments) == ()), known[0])
        name, rule = chosen
        try:
            converted = _convert(rule, arguments)
        except NoCounterpart as error:
            return _unmapped(rule.target, arguments, f"{_shown(call.tool)}: {error}")
        return MappedCall(tool=rule.target, arguments=converted, via=name)

    def _malformed(self, call: RecordedCall) -> Unmapped:
        user = next((each.tool for each in self.maps if each.recorded == call.tool), None)
        target = (
            user
            or self._served_tool(call.tool)
            or next((r.target for _, r in self._rules(call.tool, {})), None)
        )
        detail = f"the arguments of {_shown(call.tool)} are no JSON object: {_shown(call.raw_arguments)}"
        return Unmapped(
            tool=target or call.tool,
            arguments={"raw_arguments": call.raw_arguments},
            reason=Reason(code="arguments.invalid", detail=detail),
        )

    def _rules(self, tool: str, arguments: Mapping[str, JsonValue]) -> Iterator[tuple[ProfileName, Rule]]:
        for name in self.profiles:
            profile: Profile = PROFILES[name]
            rule = profile.get(tool)
            chosen = rule if rule is None or isinstance(rule, Rule) else rule(arguments)
            if chosen is not None:
                yield name, chosen

    def _served_tool(self, name: str) -> str | None:
        prefix, _, tool = name.rpartition("__")
        if tool in TOOLS and prefix.startswith("mcp__") and len(prefix) > len("mcp__"):
            return tool
        for server in self.servers:
            for tool in TOOLS:
                if name in (f"{server}_{tool}", f"mcp_{server}_{tool}"):
                    return tool
        return None


def tool_map_for(
    format: FormatName,  # noqa: A002 - the field's word
    *,
    profiles: Sequence[str] = (),
    maps: Sequence[str] = (),
) -> ToolMap:
    """Build the map for recordings of a format.

    Args:
        format: Whose usual profiles are taken where ``profiles`` is empty.
        profiles: Names of profiles in order, or ``mcp:SERVER`` for tools named ``SERVER_tool``.
        maps: Each ``FROM=TO[,argument=argument…]``, as ``parse_map`` reads it.

    Raises:
        MapInvalid: A profile is unknown, or a map cannot be read.
    """
    servers = tuple(
        name.removeprefix(_SERVER_PROFILE) for name in profiles if name.startswith(_SERVER_PROFILE)
    )
    if "" in servers:
        raise MapInvalid("mcp: without a server", hint="mcp:NAME, where the recording has NAME_write_file")
    named: tuple[ProfileName, ...] = tuple(
        _profile(name) for name in profiles if not name.startswith(_SERVER_PROFILE)
    )
    return ToolMap(
        profiles=named or PROFILES_OF_FORMAT[format],
        servers=servers,
        maps=tuple(parse_map(text) for text in maps),
    )


def parse_map(text: str) -> UserMap:
    """Read ``FROM=TO[,recorded=ours…]``; ``recorded=`` leaves that argument out.

    Raises:
        MapInvalid: It is not of that form, or TO is no tool of ours.
    """
    recorded, equals, rest = text.partition("=")
    target, *pairs = rest.split(",")
    if not recorded or not equals or not target:
        raise MapInvalid(f"not a map: {_shown(text)}", hint="for example run_cmd=terminal,cmd=command,note=")
    if target not in TOOLS:
        raise MapInvalid(f"{_shown(target)} is no tool here", hint=f"tools: {', '.join(TOOLS)}")
    renames: dict[str, str | None] = {}
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not theirs or not equals or theirs in renames:
            raise MapInvalid(
                f"not an argument map: {_shown(pair)}", hint="recorded=ours, or recorded= to leave it out"
            )
        renames[theirs] = ours or None
    return UserMap(recorded=recorded, tool=target, renames=renames)


def _profile(name: str) -> ProfileName:
    for known in PROFILE_NAMES:
        if known == name:
            return known
    raise MapInvalid(
        f"unknown profile {_shown(name)}", hint=f"profiles: {', '.join(PROFILE_NAMES)}, mcp:SERVER"
    )


def _by_user(user_map: UserMap, arguments: Mapping[str, JsonValue]) -> MappedCall | Unmapped:
    converted: dict[str, JsonValue] = {}
    for name, value in arguments.items():
        ours = user_map.renames.get(name, name)
        if ours is None:
            continue
        if ours in converted:
            return _unmapped(user_map.tool, arguments, f"two recorded arguments both became {_shown(ours)}")
        converted[ours] = value
    return MappedCall(tool=user_map.tool, arguments=converted, via="map")


def _convert(rule: Rule, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    if rule.passes_all:
        return arguments
    unknown = _unknown_arguments(rule, arguments)
    if unknown:
        raise NoCounterpart(
            f"no counterpart for the argument {', '.join(_shown(name) for name in unknown[:5])}"
        )
    draft: Draft = dict(rule.fixed)
    for name, step in rule.steps.items():
        value = arguments.get(name)
        # Some agents send null for what they leave out.
        if value is not None:
            try:
                step(draft, value)
            except NoCounterpart as error:
                raise NoCounterpart(f"argument {name}: {error}") from error
    return draft


def _unknown_arguments(rule: Rule, arguments: Mapping[str, JsonValue]) -> tuple[str, ...]:
    properties = TOOLS[rule.target].input_schema.get("properties")
    ours: Mapping[str, JsonValue] = properties if isinstance(properties, Mapping) else {}
    known = ours if rule.passes_all else rule.steps
    return tuple(name for name in arguments if name not in known)


def _unmapped(tool: str, arguments: Mapping[str, JsonValue], detail: str) -> Unmapped:
    return Unmapped(tool=tool, arguments=arguments, reason=Reason(code="tool.unmapped", detail=detail))


def _shown(text: str) -> str:
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return ascii(cut)

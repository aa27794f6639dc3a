"""Globs over relative paths, by segment.

``*`` and ``?`` and ``[...]`` stay within a segment, a segment ``**`` stands for any number of segments, none
included: ``src/**`` covers ``src`` and all below it. There is no escape character, no brace and no negation;
a remit that holds one is refused, since a deny glob that silently matches nothing would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, Self, TypeVar

_Step = TypeVar("_Step")
_WILD: Final = frozenset("*?[")
MAX_GLOB_LENGTH: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobProblem:
    """Why a glob is refused, and what to write instead."""

    message: str
    hint: str | None = None


def glob_matches(pattern: str, relative: str) -> bool:
    """Say whether the glob covers exactly this normalised path; ``"."`` is covered by ``**`` alone."""
    return _compiled((pattern,), covers_below=False).fullmatch(_subject(relative)) is not None


def glob_problem(pattern: str) -> GlobProblem | None:
    """Say what is wrong with a glob that a remit declares."""
    if not pattern or len(pattern) > MAX_GLOB_LENGTH:
        return GlobProblem(message=f"a glob has between 1 and {MAX_GLOB_LENGTH} characters")
    if any(character < " " or character == "\x7f" for character in pattern):
        return GlobProblem(message="a glob holds no control characters")
    segments = pattern.split("/")
    if pattern.startswith("/") or segments[0] == "~" or ".." in segments:
        return GlobProblem(
            message=f"glob {pattern!a} leaves the workspace", hint="globs are relative to the workspace"
        )
    if pattern.startswith("!"):
        return GlobProblem(
            message="a glob cannot be negated", hint="use `deny`, which wins over `read` and `write`"
        )
    if pattern.endswith("/"):
        return GlobProblem(message="a glob does not end in '/'", hint=f"did you mean {pattern + '**'!a}?")
    if "" in segments or "." in segments:
        tidy = "/".join(segment for segment in segments if segment not in {"", "."})
        return GlobProblem(
            message="a glob has no empty and no '.' segments", hint=f"did you mean {tidy or '**'!a}?"
        )
    return next((problem for segment in segments if (problem := _segment_problem(segment))), None)


def glob_covers(wide: str, narrow: str, *, guarded: Sequence[str] = ()) -> bool:
    """Say whether everything that ``narrow`` matches is surely matched by ``wide``; in doubt, no.

    A literal segment of ``narrow`` that one of the globs ``guarded`` ends in is covered by that literal only.
    """
    ends = _compiled(tuple(glob.rpartition("/")[2] for glob in guarded), covers_below=False)

    def is_guarded(segment: str) -> bool:
        return is_literal(segment) and ends.fullmatch(f"{segment}/") is not None

    def covers(wider: str, segment: str) -> bool:
        if wider == segment:
            return True
        if is_literal(segment):
            return not is_guarded(segment) and glob_matches(wider, segment)
        return wider == "*" and segment != "**"

    return _walk(
        wide.split("/"), narrow.split("/"), stays=lambda segment: not is_guarded(segment), moves=covers
    )


def is_literal(segment: str) -> bool:
    """Say whether a segment of a glob matches its own text alone."""
    return not _WILD.intersection(segment)


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobSet:
    """Several globs as one: a path matches when one of them does; of no globs, never."""

    patterns: tuple[str, ...]
    names: frozenset[str]
    itself: re.Pattern[str]
    below: re.Pattern[str] | None

    @classmethod
    def of(cls, patterns: Sequence[str], *, covers_below: bool = False) -> Self:
        """Compile the globs; with ``covers_below`` the match of a directory covers all below it."""
        # A name at any depth, as most of what is protected by default, is looked up and not searched for.
        names = frozenset(glob[3:] for glob in patterns if glob.startswith("**/") and _is_name(glob[3:]))
        others = tuple(glob for glob in patterns if not (glob.startswith("**/") and glob[3:] in names))
        below = _compiled(others, covers_below=True) if covers_below else None
        return cls(
            patterns=tuple(patterns), names=names, itself=_compiled(others, covers_below=False), below=below
        )

    def matches(self, relative: str) -> bool:
        """Say whether a glob covers the path."""
        if self.below is None:
            return self.matches_itself(relative)
        named = bool(self.names) and not self.names.isdisjoint(relative.split("/"))
        return named or self.below.fullmatch(_subject(relative)) is not None

    def matches_itself(self, relative: str) -> bool:
        """Say whether a glob matches the path, and not only a directory above it."""
        named = relative.rpartition("/")[2] in self.names
        return named or self.itself.fullmatch(_subject(relative)) is not None

    def first(self, relative: str) -> str:
        """Name the first glob that matches the path or a directory above it; nothing when none does."""
        segments = relative.split("/")
        heads = ["/".join(segments[:end]) for end in range(1, len(segments) + 1)]
        return next((glob for glob in self.patterns if any(glob_matches(glob, head) for head in heads)), "")

    def names_exactly(self, segments: Sequence[str], *, where: Sequence[bool]) -> bool:
        """Say whether one glob matches with a literal segment wherever ``where`` asks for it."""
        steps = list(zip(segments, where, strict=True))
        return any(
            _walk(glob.split("/"), steps, stays=lambda step: not step[1], moves=_names_segment)
            for glob in self.patterns
        )


def _is_name(segment: str) -> bool:
    return "/" not in segment and is_literal(segment)


def _names_segment(pattern: str, step: tuple[str, bool]) -> bool:
    segment, exact = step
    if is_literal(pattern) or exact:
        return is_literal(pattern) and pattern == segment
    return glob_matches(pattern, segment)


def _walk(
    pattern: Sequence[str],
    steps: Sequence[_Step],
    *,
    stays: Callable[[_Step], bool],
    moves: Callable[[str, _Step], bool],
) -> bool:
    """Follow a glob as an automaton, so that many ``**`` cost no more than few.

    ``stays`` says whether a ``**`` may take the step in, ``moves`` whether another segment may.
    """
    places = _past_stars(pattern, {0})
    for step in steps:
        reached = set()
        for place in places - {len(pattern)}:
            if pattern[place] == "**":
                reached |= {place} if stays(step) else set()
            elif moves(pattern[place], step):
                reached.add(place + 1)
        places = _past_stars(pattern, reached)
    return len(pattern) in places


def _past_stars(pattern: Sequence[str], places: set[int]) -> set[int]:
    reached = set(places)
    for place, segment in enumerate(pattern):
        if place in reached and segment == "**":
            reached.add(place + 1)
    return reached


def _subject(relative: str) -> str:
    # Every segment ends in "/" in the text that is matched: a glob's segments then follow each other alike,
    # and the root is the empty text.
    return "" if relative == "." else f"{relative}/"


@lru_cache(maxsize=1024)
def _compiled(patterns: tuple[str, ...], *, covers_below: bool) -> re.Pattern[str]:
    below = "(?:[^/]+/)*+" if covers_below else ""
    alternatives = "|".join(_expression(pattern) for pattern in patterns) or "(?!)"
    return re.compile(f"(?:{alternatives}){below}")


def _expression(pattern: str) -> str:
    """Translate a glob so that matching never backtracks over more than one ``**``.

    What stands between two ``**`` has a fixed number of segments, so its first match is as good as any later
    one and is kept by an atomic group; only the part after the last ``**`` looks for the end of the path.
    """
    runs = [""]
    for segment in pattern.split("/"):
        if segment == "**":
            runs.append("")
        else:
            runs[-1] += f"{_segment_expression(segment)}/"
    if len(runs) == 1:
        return runs[0]
    first, *middle, last = runs
    kept = "".join(f"(?>(?:[^/]+/)*?{run})" for run in middle if run)
    return f"{first}{kept}(?:[^/]+/)*{last}"


def _segment_expression(segment: str) -> str:
    pieces = [""]
    for atom in _atoms(segment):
        if atom == "*":
            pieces.append("")
        else:
            pieces[-1] += _atom_expression(atom)
    if len(pieces) == 1:
        return pieces[0]
    first, *middle, last = pieces
    kept = "".join(f"(?>[^/]*?{piece})" for piece in middle if piece)
    return f"{first}{kept}[^/]*{last}"


def _atoms(segment: str) -> Iterator[str]:
    at = 0
    while at < len(segment):
        end = _class_end(segment, at) if segment[at] == "[" else at
        yield segment[at : end + 1]
        at = end + 1


def _class_end(segment: str, start: int) -> int:
    """Find the bracket that closes a class; for one that is never closed, the opening one."""
    negated = segment[start + 1 : start + 2] in {"!", "^"}
    # A closing bracket in the first place is a member.
    end = segment.find("]", start + (3 if negated else 2))
    return start if end < 0 else end


def _atom_expression(atom: str) -> str:
    if atom == "?":
        return "[^/]"
    if len(atom) == 1:
        return re.escape(atom)
    negated, ranges = _class_ranges(atom)
    inner = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high)
    if negated:
        return f"[^/{inner}]"
    return f"(?!/)[{inner}]" if inner else "(?!)"


def _class_ranges(atom: str) -> tuple[bool, list[tuple[str, str]]]:
    members = atom[1:-1]
    negated = members[0] in "!^"
    pairs = re.findall(r"(.)-(.)|(.)", members[1:] if negated else members, flags=re.DOTALL)
    return negated, [(low or single, high or single) for low, high, single in pairs]


def _segment_problem(segment: str) -> GlobProblem | None:
    if segment == "**":
        return None
    atoms = list(_atoms(segment))
    if ("*", "*") in pairwise(atoms):
        tidy = re.sub(r"\*+", "*", segment)
        return GlobProblem(message="'**' stands for whole segments", hint=f"did you mean {tidy!a}?")
    return next((problem for atom in atoms if (problem := _atom_problem(atom))), None)


def _atom_problem(atom: str) -> GlobProblem | None:
    if atom == "[":
        return GlobProblem(
            message="'[' is not closed in the glob", hint="write [[] to match the character itself"
        )
    if atom in {"{", "}", "\\"}:
        hint = f"write one glob for each case, or [{atom}] for the character itself"
        return GlobProblem(message=f"{atom!r} has no meaning in a glob", hint=hint)
    if atom.startswith("[[:"):
        return GlobProblem(
            message="a glob knows no named character classes", hint="write the range, as in [a-z]"
        )
    if len(atom) > 1 and any(low > high for low, high in _class_ranges(atom)[1]):
        return GlobProblem(message=f"{atom!a} holds a range that runs backwards")
    return None

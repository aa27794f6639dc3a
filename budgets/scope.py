"""Which paths of the workspace a call may read and write.

Paths are compared segment by segment after normalising, as the bytes that the kernel would see: no case
folding, no Unicode normalisation. ``fnmatch`` and ``PurePath.match`` are not used, ``out/../../etc/passwd``
matches ``out/*`` there. Symbolic links are not resolved here; the sandbox follows none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, Self

from budgets.call import PathUse
from budgets.glob import GlobSet, glob_matches
from budgets.reasons import Reason

__all__ = ["MAX_PATH_BYTES", "PathRules", "Scope", "glob_matches", "normalise", "shown"]

MAX_PATH_BYTES: Final = 4096


class PathRules(Protocol):
    """The part of a remit that a ``Scope`` is built from."""

    mount: str
    read: tuple[str, ...]
    write: tuple[str, ...]
    deny: tuple[str, ...]
    protect: tuple[str, ...]


def normalise(path: str, *, mount: str) -> str | Reason:
    """Turn a path as a model gave it into the one relative name it has in the workspace; ``"."`` is the root.

    An absolute path below ``mount`` is accepted. ``..`` is resolved by name and may not go above the root,
    not even to come back. Two spellings of the same bytes become one.
    """
    problem = _unusable(path)
    if problem is not None:
        return Reason(code="arguments.invalid", detail=problem)
    path = _one_spelling(path)
    segments = _split(path)
    if path.startswith("/"):
        root = _split(mount)
        if segments[: len(root)] != root:
            return Reason(code="scope.outside", detail=f"{shown(path)} is not below {mount}")
        segments = segments[len(root) :]
    elif segments and segments[0] == "~":
        return Reason(code="scope.outside", detail=f"{shown(path)} is a home directory")
    resolved = _resolve(segments)
    if resolved is None:
        return Reason(code="scope.outside", detail=f"{shown(path)} leaves the workspace")
    return "/".join(resolved) or "."


def shown(path: str) -> str:
    """Quote a path for a detail: bounded, printable ASCII, whatever the model put in."""
    return ascii(path) if len(path) <= 120 else f"{path[:120]!a}…"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """A remit's globs, compiled once.

    All methods but ``normalise`` and ``object_to`` take a path that is already normalised.
    """

    mount: str
    read: GlobSet
    write: GlobSet
    deny: GlobSet
    protect: GlobSet

    @classmethod
    def of(cls, rules: PathRules) -> Self:
        """Compile a remit's scope section."""
        return cls(
            mount=rules.mount,
            read=GlobSet.of(rules.read),
            write=GlobSet.of(rules.write),
            deny=GlobSet.of(rules.deny, covers_below=True),
            protect=GlobSet.of(rules.protect, covers_below=True),
        )

    def normalise(self, path: str, *, mount: str | None = None) -> str | Reason:
        """Do as the module's ``normalise``, with this scope's mount point unless another is given."""
        return normalise(path, mount=self.mount if mount is None else mount)

    def object_to(self, use: PathUse) -> Reason | None:
        """Name the first rule against this use, in the order outside, deny, protect, write or read."""
        relative = self.normalise(use.path)
        if isinstance(relative, Reason):
            return relative
        if self.denied(relative):
            return Reason(
                code="scope.deny", detail=f"{shown(relative)} is denied by {self.deny.first(relative)}"
            )
        if use.access == "read":
            return None if self.read.matches(relative) else _uncovered(relative, "read", self.read)
        if self.protected(relative):
            return Reason(
                code="scope.protect",
                detail=f"{shown(relative)} is protected by {self.protect.first(relative)}",
            )
        return None if self.write.matches(relative) else _uncovered(relative, "write", self.write)

    def denied(self, relative: str) -> bool:
        """Say whether a deny glob covers the path or a directory above it."""
        return self.deny.matches(relative)

    def protected(self, relative: str) -> bool:
        """Say whether a protect glob covers the path and no write glob names what it protects."""
        return self.protect.matches(relative) and not self._lifted(relative)

    def readable(self, relative: str) -> bool:
        """Say whether a file tool may read the path."""
        return self.read.matches(relative) and not self.denied(relative)

    def write_allowed(self, relative: str) -> bool:
        """Say whether the path may be made, changed or removed."""
        return self.write.matches(relative) and not self.denied(relative) and not self.protected(relative)

    def growth(self, relative: str) -> Literal["growth.beyond_scope", "growth.protected"] | None:
        """Name the code under which a change of this path is growth; nothing when it may be written."""
        if self.denied(relative) or self.protected(relative):
            return "growth.protected"
        return None if self.write.matches(relative) else "growth.beyond_scope"

    def _lifted(self, relative: str) -> bool:
        segments = relative.split("/")
        guarded = [self.protect.matches_itself("/".join(segments[: end + 1])) for end in range(len(segments))]
        return self.write.names_exactly(segments, where=guarded)


def _uncovered(relative: str, access: str, globs: GlobSet) -> Reason:
    listed = ", ".join(globs.patterns[:5]) + (", …" if len(globs.patterns) > 5 else "")
    return Reason(
        code=f"scope.{access}",
        detail=f"{shown(relative)} is not among what may be {_DONE[access]}: {listed or 'nothing'}",
    )


_DONE: Final = {"read": "read", "write": "written"}


def _unusable(path: str) -> str | None:
    if not path:
        return "the path is empty"
    if "\0" in path:
        return f"{shown(path)} holds a NUL"
    try:
        size = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return f"{shown(path)} cannot be the name of a file"
    return (
        None if size <= MAX_PATH_BYTES else f"the path has {size} bytes, at most {MAX_PATH_BYTES} are allowed"
    )


def _one_spelling(path: str) -> str:
    # Surrogate escapes can spell the very bytes of a valid character: "\udcc3\udca9" and "é" name one
    # file, and a deny glob must see both as that file.
    return (
        path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    )


def _split(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment not in {"", "."}]


def _resolve(segments: Sequence[str]) -> list[str] | None:
    resolved: list[str] = []
    for segment in segments:
        if segment != "..":
            resolved.append(segment)
        elif resolved:
            resolved.pop()
        else:
            return None
    return resolved

"""The V4A patch text: parse it, and apply its hunks to a file's text. Pure.

A hunk is placed where its old lines stand, after the place of the hunk before it and after its @@ lines.
Lines are compared exactly; if nothing matches, without trailing blanks; then without surrounding blanks. A
hunk without @@ lines that fits in more than one place is refused rather than put into the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from budgets.reasons import Reason

_BEGIN: Final = "*** Begin Patch"
_END: Final = "*** End Patch"
_ADD: Final = "*** Add File: "
_DELETE: Final = "*** Delete File: "
_UPDATE: Final = "*** Update File: "
_MOVE: Final = "*** Move to: "
_END_OF_FILE: Final = "*** End of File"
_OPENINGS: Final = (_ADD, _DELETE, _UPDATE, _END)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hunk:
    """Old lines that stand somewhere after ``anchors``, and what replaces them."""

    anchors: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    at_end: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AddFile:
    """A file that is not there yet."""

    path: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeleteFile:
    """A file that shall be gone."""

    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateFile:
    """A file to change, and perhaps to move."""

    path: str
    move_to: str | None
    hunks: tuple[Hunk, ...]


V4aOperation = AddFile | DeleteFile | UpdateFile


def parse_patch(text: str) -> tuple[V4aOperation, ...] | Reason:
    """Read the patch text; what is not understood is refused as a whole."""
    try:
        return tuple(_Reader(text).operations())
    except _PatchError as problem:
        return Reason(code="patch.invalid", detail=str(problem))


def apply_hunks(path: str, text: str, hunks: Sequence[Hunk]) -> str | Reason:
    """Give ``text`` with every hunk in place, line endings and a missing last newline kept."""
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(ending)
    closed = lines[-1] == ""
    if closed:
        lines.pop()
    changed: list[str] = []
    position = 0
    for number, hunk in enumerate(hunks, 1):
        start = _place(lines, hunk, position)
        if isinstance(start, str):
            code = "patch.ambiguous" if start.startswith("fits") else "patch.no_match"
            return Reason(code=code, detail=f"{path}: hunk {number} {start}")
        changed += lines[position:start]
        changed += hunk.new
        position = start + len(hunk.old)
    changed += lines[position:]
    return ending.join(changed) + (ending if closed and changed else "")


class _PatchError(Exception):
    """The text is no V4A patch."""


class _Reader:
    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").strip("\n").split("\n")
        self._at = 0

    def operations(self) -> Iterator[V4aOperation]:
        if self._take().strip() != _BEGIN:
            raise _PatchError(f"the first line must be {_BEGIN!r}")
        count = 0
        while (line := self._take()).rstrip() != _END:
            count += 1
            yield self._operation(line)
        if count == 0:
            raise _PatchError("the patch holds no file")
        if self._at < len(self._lines):
            raise _PatchError(f"line {self._at + 1}: text after {_END!r}")

    def _operation(self, line: str) -> V4aOperation:
        if line.startswith(_ADD):
            return AddFile(path=_path(line, _ADD), content="".join(f"{added}\n" for added in self._added()))
        if line.startswith(_DELETE):
            return DeleteFile(path=_path(line, _DELETE))
        if line.startswith(_UPDATE):
            return self._update(_path(line, _UPDATE))
        raise _PatchError(f"line {self._at}: expected a file, found {line[:60]!r}")

    def _added(self) -> Iterator[str]:
        while not self._at_opening():
            line = self._take()
            if not line.startswith("+"):
                raise _PatchError(f"line {self._at}: every line of an added file starts with +")
            yield line[1:]

    def _update(self, path: str) -> UpdateFile:
        move_to = None
        if self._next().startswith(_MOVE):
            move_to = _path(self._take(), _MOVE)
        hunks: list[Hunk] = []
        while not self._at_opening():
            hunks.append(self._hunk())
        if not hunks and move_to is None:
            raise _PatchError(f"{path}: an update without a change")
        return UpdateFile(path=path, move_to=move_to, hunks=tuple(hunks))

    def _hunk(self) -> Hunk:
        anchors: list[str] = []
        while self._next().startswith("@@"):
            anchor = _anchor(self._take())
            if anchor:
                anchors.append(anchor)
        old: list[str] = []
        new: list[str] = []
        at_end = False
        while not self._at_opening() and not self._next().startswith("@@"):
            line = self._take()
            if line.rstrip() == _END_OF_FILE:
                at_end = True
                break
            self._hunk_line(line, old, new)
        if not old and not new:
            raise _PatchError(f"line {self._at}: a hunk without lines")
        return Hunk(anchors=tuple(anchors), old=tuple(old), new=tuple(new), at_end=at_end)

    def _hunk_line(self, line: str, old: list[str], new: list[str]) -> None:
        mark, rest = line[:1], line[1:]
        if mark not in ("", " ", "-", "+"):
            raise _PatchError(
                f"line {self._at}: expected a line that starts with blank, - or +, found {line[:60]!r}"
            )
        if mark != "+":
            old.append(rest)
        if mark != "-":
            new.append(rest)

    def _at_opening(self) -> bool:
        return self._next().startswith(_OPENINGS)

    def _next(self) -> str:
        if self._at >= len(self._lines):
            raise _PatchError(f"the last line must be {_END!r}")
        return self._lines[self._at]

    def _take(self) -> str:
        line = self._next()
        self._at += 1
        return line


def _path(line: str, opening: str) -> str:
    path = line[len(opening) :].strip()
    if not path:
        raise _PatchError(f"{opening.strip()} without a path")
    return path


def _anchor(line: str) -> str:
    # Some models close the hint as unified diffs do: @@ def f(): @@
    return line[2:].removesuffix("@@").strip()


def _place(lines: list[str], hunk: Hunk, position: int) -> int | str:
    start = position
    for anchor in hunk.anchors:
        found = _find_line(lines, anchor, start)
        if found is None:
            return f"has the context {anchor[:80]!r}, which is not there"
        start = found + 1
    if not hunk.old:
        return start if hunk.anchors else len(lines)
    places = _places(lines, hunk, start)
    if not places and hunk.anchors:
        # The line named by @@ may itself be the hunk's first line.
        places = _places(lines, hunk, start - 1)
    if not places:
        return f"does not match; its first line is {hunk.old[0][:80]!r}"
    if len(places) > 1 and not hunk.anchors:
        return f"fits in {len(places)} places; add context or an @@ line"
    return places[0]


def _find_line(lines: list[str], anchor: str, start: int) -> int | None:
    for index in range(start, len(lines)):
        if lines[index].strip() == anchor:
            return index
    return next((index for index in range(start, len(lines)) if anchor in lines[index]), None)


def _places(lines: list[str], hunk: Hunk, start: int) -> list[int]:
    ways: tuple[Callable[[str], str], ...] = (str, str.rstrip, str.strip)
    last = len(lines) - len(hunk.old)
    for way in ways:
        wanted = [way(line) for line in hunk.old]
        have = lines if way is str else [way(line) for line in lines]
        first = max(start, last) if hunk.at_end else start
        places = [
            index
            for index in range(first, last + 1)
            if have[index] == wanted[0] and have[index : index + len(wanted)] == wanted
        ]
        if places:
            return places
    return []

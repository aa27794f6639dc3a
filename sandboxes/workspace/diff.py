"""Show the changes of a run as a unified diff that is safe on a terminal.

Each change starts with a line that says what happened to the path; text is shown line by line, binary
content by size and digest. Names and lines hold no control, format or bidirectional characters: they appear
as escapes. Old content comes from the user's tree; where the tree is no longer what the run saw, the diff
says so.

A diff of hostile files must not take for ever: where two long texts have little in common, all lines between
the first and the last difference are shown as replaced; long texts are summed up as binary content is.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sandboxes.workspace.changes import Change, text_sha256
from sandboxes.workspace.cursor import TreeCursor, open_file
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.manifest import Manifest
from sandboxes.workspace.names import escape_name, escape_text, parts_of, to_bytes, to_text

_MAX_TEXT_BYTES = 1 << 20
_MAX_SHOWN_BYTES = 32 << 20
_MAX_COMPARED_LINES = 4_000_000
_CONTEXT_LINES = 3

_Opcode = tuple[str, int, int, int, int]


def render_diff(manifest: Manifest, lower: Path) -> str:
    """Give the diff of all changes against the tree that they were made on.

    Raises:
        ChangesInvalid: Content is missing or damaged.
    """
    room = _MAX_SHOWN_BYTES
    lines: list[str] = []
    with TreeCursor.at(lower) as cursor:
        for change in sorted(manifest.changes, key=lambda change: parts_of(change.path)):
            before, after = _before(cursor, change), _after(manifest, change)
            lines.append(_headline(change))
            room -= len(before.data or b"") + len(after.data or b"")
            lines += _content(change, before, after, is_shown=room >= 0)
    return "".join(f"{line}\n" for line in lines)


class _Side(NamedTuple):
    """One side of a change: its size and digest, and its bytes if they can be shown."""

    size: int | None = None
    sha256: str | None = None
    data: bytes | None = None

    @property
    def is_text(self) -> bool:
        return self.size is None or (self.data is not None and b"\0" not in self.data)

    @property
    def summary(self) -> str:
        return "nothing" if self.size is None else f"{self.size} bytes, sha256 {self.sha256}"


_NOTHING = _Side()


def _before(cursor: TreeCursor, change: Change) -> _Side:
    """Read what the run saw; a side with a digest and no size if it is not there any more."""
    if change.before_kind not in {"file", "symlink"}:
        return _NOTHING
    *parents, name = parts_of(change.path)
    try:
        cursor.move_to(parents)
        side = _side_of_tree(cursor.fd, name, change.before_kind)
    except (OSError, LayerUnreadable):
        return _Side(sha256=change.before_sha256 or "")
    return side if side.sha256 == change.before_sha256 else _Side(sha256=change.before_sha256 or "")


def _side_of_tree(directory_fd: int, name: bytes, kind: str) -> _Side:
    if kind == "symlink":
        return _side_of_bytes(os.readlink(name, dir_fd=directory_fd))
    with open(open_file(directory_fd, name), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_TEXT_BYTES:
            return _Side(size, hashlib.file_digest(file, "sha256").hexdigest(), None)
        return _side_of_bytes(file.read())


def _side_of_bytes(data: bytes) -> _Side:
    return _Side(len(data), text_sha256(data), data)


def _after(manifest: Manifest, change: Change) -> _Side:
    if change.target is not None:
        return _side_of_bytes(to_bytes(change.target))
    if change.sha256 is None or change.size is None:
        return _NOTHING
    if change.size > _MAX_TEXT_BYTES:
        return _Side(change.size, change.sha256, None)
    return _side_of_bytes(manifest.read_blob(change.sha256))


def _content(change: Change, before: _Side, after: _Side, *, is_shown: bool) -> Iterator[str]:
    if before.sha256 is not None and before.size is None:
        yield "the tree is no longer what the run saw here: no old content to show"
        return
    if before.size is None and after.size is None:
        return
    if before.sha256 == after.sha256 and change.kind == change.before_kind:
        return
    if not is_shown or not before.is_text or not after.is_text:
        yield f"content not shown: {before.summary} -> {after.summary}"
        return
    name = escape_name(change.path)
    yield f"--- {'/dev/null' if before.data is None else f'a/{name}'}"
    yield f"+++ {'/dev/null' if after.data is None else f'b/{name}'}"
    yield from _hunks(_split(before.data or b""), _split(after.data or b""))


def _headline(change: Change) -> str:
    name = escape_name(change.path)
    if change.kind == "other" and change.change != "deleted":
        return f"{change.change} {name} (not a file, directory or link: not carried over)"
    if change.change == "deleted":
        return f"deleted {change.kind} {name}"
    if change.change == "added":
        return f"added {change.kind} {name}{_mode(change.mode)}"
    if change.before_kind != change.kind:
        return f"replaced {change.before_kind} {name} by {change.kind}{_mode(change.mode)}"
    if change.mode != change.before_mode:
        return f"modified {change.kind} {name} (mode {change.before_mode or 0:03o} -> {change.mode or 0:03o})"
    return f"modified {change.kind} {name}"


def _mode(mode: int | None) -> str:
    return "" if mode is None else f" (mode {mode:03o})"


def _split(data: bytes) -> list[bytes]:
    """Split at line feeds alone, each line with its own."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _hunks(before: Sequence[bytes], after: Sequence[bytes]) -> Iterator[str]:
    for group in _groups(before, after):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@"
        for tag, before_start, before_end, after_start, after_end in group:
            if tag == "equal":
                yield from _lines(" ", before[before_start:before_end])
                continue
            yield from _lines("-", before[before_start:before_end])
            yield from _lines("+", after[after_start:after_end])


def _groups(before: Sequence[bytes], after: Sequence[bytes]) -> Iterator[list[_Opcode]]:
    """Group the differences with their context, comparing only between the first and the last of them."""
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    lead, trail = min(head, _CONTEXT_LINES), min(tail, _CONTEXT_LINES)
    start, ends = head - lead, (len(before) - tail + trail, len(after) - tail + trail)
    middle = (ends[0] - trail - head, ends[1] - trail - head)
    if middle[0] * middle[1] > _MAX_COMPARED_LINES:
        replaced = ("replace", head, ends[0] - trail, head, ends[1] - trail)
        context = ("equal", ends[0] - trail, ends[0], ends[1] - trail, ends[1])
        yield [("equal", start, head, start, head), replaced, context]
        return
    matcher = difflib.SequenceMatcher(None, before[start : ends[0]], after[start : ends[1]])
    for group in matcher.get_grouped_opcodes(_CONTEXT_LINES):
        yield [(tag, a + start, b + start, c + start, d + start) for tag, a, b, c, d in group]


def _common(left: Sequence[bytes], right: Sequence[bytes]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _range(start: int, end: int) -> str:
    """Write a range of lines as POSIX diff -u does: an empty one names the line before it."""
    length = end - start
    if length == 1:
        return f"{start + 1}"
    return f"{start + 1 if length else start},{length}"


def _lines(prefix: str, lines: Sequence[bytes]) -> Iterator[str]:
    for line in lines:
        yield prefix + escape_text(to_text(line.removesuffix(b"\n")))
        if not line.endswith(b"\n"):
            yield "\\ No newline at end of file"

"""What a run changed: the layer on top compared with the user's tree below.

For an overlay only what lies in the upper directory is looked at, so the cost grows with the changes and
not with the tree; a file that was copied up and is still the same is no change. For a copy both trees are
compared.

The layer was made by a program that may be hostile: nothing in it is followed, nothing is waited for, and
what cannot be carried over (FIFOs, sockets, devices, files that are nearly all hole, directories with paths
of absurd length) is reported as kind ``other`` and not looked into.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from sandboxes.base import Layer
from sandboxes.workspace.cursor import TreeCursor, open_file
from sandboxes.workspace.errors import LayerUnreadable
from sandboxes.workspace.layers import Entry, EntryKind, entry_of, is_metacopy, is_opaque, is_whiteout
from sandboxes.workspace.names import list_names, to_text

_CHUNK_BYTES = 1 << 20
_LIVE_TRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One path that is not what it was.

    Attributes:
        path: Relative to the workspace; bytes that are not UTF-8 are surrogate escapes.
        change: A new mode, type or link target is ``modified`` too.
        kind: What is there now; for a deletion what was there.
        mode: Permission bits now, of files and directories.
        sha256: Hex digest of a file's content now.
        target: Where a link points now, unresolved.
        before_sha256: Hex digest of a file that was there; of a link's target text for a link.
    """

    path: str
    change: Literal["added", "modified", "deleted"]
    kind: EntryKind
    mode: int | None = None
    size: int | None = None
    sha256: str | None = None
    target: str | None = None
    before_sha256: str | None = None
    before_kind: EntryKind | None = None
    before_mode: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerBounds:
    """How much of a hostile layer is looked at.

    Attributes:
        hole_bytes: What all files together may hold in holes; data that takes space the disk limit bounds.
        path_bytes: A directory whose path is longer is not entered.
        listed_bytes: The lengths of all changed paths together; beyond it the layer is refused.
    """

    hole_bytes: int = 1 << 30
    path_bytes: int = 16 * 1024
    listed_bytes: int = 256 * 1024 * 1024


def read_changes(layer: Layer, *, bounds: LayerBounds | None = None) -> tuple[Change, ...]:
    """Give every change in order of path, with digests. For a layer whose sandbox was closed.

    Raises:
        LayerUnreadable: The layer holds marks that no backend makes, moved meanwhile, or lists too much.
    """
    try:
        with _Comparison(layer, bounds or LayerBounds()) as comparison:
            changes = [comparison.change(pair) for pair in comparison.pairs() if comparison.differs(pair)]
    except OSError as error:
        raise LayerUnreadable(f"the layer over {layer.lower} cannot be read: {error}") from error
    return tuple(sorted(changes, key=lambda change: change.path))


def changed_paths(layer: Layer, *, bounds: LayerBounds | None = None) -> frozenset[str]:
    """Give the changed paths alone, without digests; good enough while the sandbox lives.

    A path that comes or goes while it is looked at may be missed; the next look finds it.

    Raises:
        LayerUnreadable: As `read_changes`.
    """
    for _ in range(_LIVE_TRIES - 1):
        try:
            return _changed_paths(layer, bounds or LayerBounds())
        except (OSError, LayerUnreadable):
            # Something moved under the walk: look again, and let the last look speak.
            continue
    try:
        return _changed_paths(layer, bounds or LayerBounds())
    except OSError as error:
        raise LayerUnreadable(f"the layer over {layer.lower} cannot be read: {error}") from error


def sha256_of(directory_fd: int, name: bytes, *, unlock: bool = False) -> str:
    """Give the hex digest of a regular file."""
    with open(open_file(directory_fd, name, unlock=unlock), "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: bytes) -> str:
    """Give the hex digest of a link's target."""
    return hashlib.sha256(text).hexdigest()


def _changed_paths(layer: Layer, bounds: LayerBounds) -> frozenset[str]:
    with _Comparison(layer, bounds) as comparison:
        return frozenset(to_text(pair.path) for pair in comparison.pairs() if comparison.differs(pair))


class _Pair(NamedTuple):
    """One name in both trees; the comparison's cursors stand in its directory while it is looked at."""

    path: bytes
    below: Entry | None
    above: Entry | None


class _Place(NamedTuple):
    names: Iterator[bytes]
    above: bool
    below: bool
    opaque: bool


class _Comparison:
    """A walk through both trees at once, with a stack of its own instead of recursion."""

    def __init__(self, layer: Layer, bounds: LayerBounds) -> None:
        self._overlay = layer.strategy == "overlay"
        self._bounds = bounds
        self._holes_left = bounds.hole_bytes
        self._listed_left = bounds.listed_bytes
        self._above = TreeCursor(layer.upper_fd, unlock=0o500)
        try:
            self._below = TreeCursor.at(layer.lower)
        except BaseException:
            self._above.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._above.close()
        self._below.close()

    def pairs(self) -> Iterator[_Pair]:
        """Give every name that may have changed, parents before children."""
        places = [self._place(above=True, below=True, opaque=not self._overlay)]
        prefix: list[bytes] = []
        while places:
            place = places[-1]
            name = next(place.names, None)
            if name is None:
                self._leave(places.pop())
                prefix = prefix[:-1]
                continue
            pair = self._pair(place, name, b"/".join((*prefix, name)))
            if pair is None:
                continue
            yield pair
            inner = self._entered(place, pair)
            if inner is not None:
                places.append(inner)
                prefix.append(name)

    def differs(self, pair: _Pair) -> bool:
        """Say whether a pair is a change, reading content only where nothing else tells."""
        below, above = pair.below, pair.above
        if below is None or above is None or below.kind != above.kind or below.target != above.target:
            return True
        if below.device != above.device or below.size != above.size:
            return True
        if below.kind in {"file", "directory"} and below.mode != above.mode:
            return True
        return above.kind == "file" and not self._same_content(below, above)

    def change(self, pair: _Pair) -> Change:
        """Describe a pair that differs."""
        before = None if pair.below is None else self._before(pair.below)
        after = None if pair.above is None else self._after(pair.above)
        told = after or before
        return Change(
            path=to_text(pair.path),
            change="deleted" if after is None else "added" if before is None else "modified",
            kind="other" if told is None else told.kind,
            mode=after.mode if after else None,
            size=after.size if after else None,
            sha256=after.digest if after and after.kind == "file" else None,
            target=to_text(after.target) if after and after.target is not None else None,
            before_sha256=before.digest if before else None,
            before_kind=before.kind if before else None,
            before_mode=before.mode if before else None,
        )

    def _place(self, *, above: bool, below: bool, opaque: bool) -> _Place:
        """List the directory that the cursors stand in: the lower one only where nothing shows through."""
        names = set(list_names(self._above.fd)) if above else set()
        if below and opaque:
            names |= set(list_names(self._below.fd))
        return _Place(iter(sorted(names)), above, below, opaque)

    def _pair(self, place: _Place, name: bytes, path: bytes) -> _Pair | None:
        above = entry_of(self._above.fd, name) if place.above else None
        below = entry_of(self._below.fd, name) if place.below else None
        if self._overlay and above is not None and is_whiteout(above):
            above = None
        if above is None and below is None:
            return None
        self._listed_left -= len(path)
        if self._listed_left < 0:
            raise LayerUnreadable(f"the changed paths take more than {self._bounds.listed_bytes} bytes")
        if above is not None and self._is_beyond_bounds(above, path):
            above = above._replace(kind="other", device=(0, 0), size=0)
        return _Pair(path, below, above)

    def _is_beyond_bounds(self, above: Entry, path: bytes) -> bool:
        if above.kind == "directory":
            return len(path) > self._bounds.path_bytes
        if above.kind != "file" or above.holes <= 0:
            return False
        self._holes_left -= above.holes
        if self._holes_left >= 0:
            return False
        self._holes_left += above.holes
        return True

    def _entered(self, place: _Place, pair: _Pair) -> _Place | None:
        above = pair.above is not None and pair.above.kind == "directory"
        below = pair.below is not None and pair.below.kind == "directory"
        if not above and not below:
            return None
        name = pair.path.rpartition(b"/")[2]
        if above:
            self._above.enter(name)
        if below:
            self._below.enter(name)
        shows_through = above and not place.opaque and not (self._overlay and is_opaque(self._above.fd))
        return self._place(above=above, below=below, opaque=not shows_through)

    def _leave(self, place: _Place) -> None:
        if place.above and self._above.parts:
            self._above.leave()
        if place.below and self._below.parts:
            self._below.leave()

    def _same_content(self, below: Entry, above: Entry) -> bool:
        if below.inode == above.inode:
            return True
        try:
            lower = open_file(self._below.fd, below.name)
        except PermissionError:
            return False
        try:
            upper = open_file(self._above.fd, above.name, unlock=True)
            try:
                return _equal(lower, upper)
            finally:
                os.close(upper)
        finally:
            os.close(lower)

    def _after(self, entry: Entry) -> EntryState:
        if entry.kind == "file" and self._overlay:
            self._refuse_metacopy(entry)
        return state_of(self._above.fd, entry, unlock=True)

    def _before(self, entry: Entry) -> EntryState:
        try:
            return state_of(self._below.fd, entry)
        except PermissionError:
            # The user's own unreadable file: the sandbox could delete or replace it, not read it.
            return EntryState(entry.kind, entry.mode, entry.size, None, None)

    def _refuse_metacopy(self, entry: Entry) -> None:
        fd = open_file(self._above.fd, entry.name, unlock=True)
        try:
            if is_metacopy(fd):
                raise LayerUnreadable(f"{entry.name!r} of the layer holds metadata alone")
        finally:
            os.close(fd)


class EntryState(NamedTuple):
    """What a change records of one side; ``digest`` is of the content, or of a link's target."""

    kind: EntryKind
    mode: int | None
    size: int | None
    digest: str | None
    target: bytes | None


def state_of(directory_fd: int, entry: Entry, *, unlock: bool = False) -> EntryState:
    """Describe an entry by what a change records of it."""
    if entry.kind == "file":
        digest = sha256_of(directory_fd, entry.name, unlock=unlock)
        return EntryState("file", entry.mode, entry.size, digest, None)
    if entry.kind == "directory":
        return EntryState("directory", entry.mode, None, None, None)
    if entry.target is not None:
        return EntryState("symlink", None, None, text_sha256(entry.target), entry.target)
    return EntryState("other", None, None, None, None)


def _equal(left: int, right: int) -> bool:
    while chunk := os.read(left, _CHUNK_BYTES):
        if chunk != _read_exactly(right, len(chunk)):
            return False
    return not os.read(right, 1)


def _read_exactly(fd: int, count: int) -> bytes:
    data = os.read(fd, count)
    while len(data) < count and (more := os.read(fd, count - len(data))):
        data += more
    return data

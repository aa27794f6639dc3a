"""What a volume of a distant engine holds, as directories here: a new one for each state that differs.

A state is whole before it takes the place of the one before, so whoever reads a layer never sees half of
one. What did not change is the same file in both. The two states before stay, for readers that have not
finished; older ones go. What a holder says is checked before it is believed: no name leads anywhere, no
device is made, sizes and numbers are bounded, and content has the digest that was announced.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from sandboxes.base import Layer
from sandboxes.docker.place import remove_tree
from sandboxes.docker.shipment import NEW_FILE, SOCKET, Record, finish
from sandboxes.workspace.cursor import TreeCursor, open_file
from sandboxes.workspace.layers import copy_bytes, write_sparse

Fetch = Callable[[Record, int], bytes]

_STATES: Final = 3


class Torn(Exception):
    """The volume changed while it was looked at: look again."""


class Mirror:
    """The states of one volume. Used in threads, by one caller at a time."""

    def __init__(self, folder: Path, lower: Path, *, hidden: Sequence[tuple[bytes, ...]]) -> None:
        self._folder = folder
        self._lower = lower
        self._hidden = hidden
        self._number = 0
        self._states: list[tuple[Path, int]] = []
        self.records: tuple[Record, ...] = ()
        self._first: tuple[Record, ...] = ()
        self.new_state()

    @property
    def layer(self) -> Layer:
        """The newest state."""
        return Layer(upper_fd=self._states[-1][1], lower=self._lower, strategy="copy")

    def new_state(self) -> int:
        """Make an empty state that is the newest one and return it as an open directory."""
        self._number += 1
        place = self._folder / f"state-{self._number}"
        place.mkdir(mode=0o700)
        self._states.append((place, os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
        return self._states[-1][1]

    def begin(self, records: tuple[Record, ...]) -> None:
        """Take the loaded state for what the volume holds at the start."""
        self.records = self._first = records

    def settle(self, surveyed: Sequence[Record], fetch: Fetch) -> None:
        """Make a state of what was surveyed; content that no state here has is fetched.

        Raises:
            Torn: Content is not what was announced any more.
        """
        wanted = self._with_hidden(surveyed)
        if wanted == self.records:
            return
        before = self._states[-1][1]
        built = self.new_state()
        try:
            _State(before, built, self.records, fetch).build(wanted)
        except BaseException:
            _dispose(*self._states.pop())
            raise
        self.records = wanted
        while len(self._states) > _STATES:
            _dispose(*self._states.pop(0))

    def close(self) -> None:
        """Let go of every state; whoever has the folder removes it."""
        while self._states:
            os.close(self._states.pop()[1])

    def _with_hidden(self, surveyed: Sequence[Record]) -> tuple[Record, ...]:
        """Put back what was kept here wherever the empty stand-in that was sent for it is still in place."""
        surveyed = [*surveyed, *self._unsent(surveyed)]
        kept = [path for path in self._hidden if _is_stand_in(path, surveyed, self._first)]
        covered = [record for record in self._first if any(_below(record.parts, path) for path in kept)]
        rest = [record for record in surveyed if not any(_below(record.parts, path) for path in kept)]
        return tuple(sorted((*rest, *covered), key=lambda record: record.parts))

    def _unsent(self, surveyed: Sequence[Record]) -> list[Record]:
        """Return what was never sent and still has its directory, and its name for itself."""
        there = {record.parts: record.kind for record in surveyed}
        return [
            record
            for record in self._first
            if record.kind == "other"
            and record.parts not in there
            and there.get(record.parts[:-1], "directory" if len(record.parts) == 1 else "") == "directory"
        ]


class _State:
    """Builds one state beside the one before it."""

    def __init__(self, before: int, built: int, records: Iterable[Record], fetch: Fetch) -> None:
        self._before = TreeCursor(before, unlock=0o500)
        self._built = TreeCursor(built)
        self._same = {record.parts: record for record in records}
        self._held = {record.content: record.parts for record in records if record.kind == "file"}
        self._fetch = fetch

    def build(self, wanted: Sequence[Record]) -> None:
        directories: list[Record] = []
        try:
            for record in wanted:
                self._built.move_to(record.parts[:-1])
                self._make(record)
                if record.kind == "directory":
                    directories.append(record)
            for record in reversed(directories):
                self._built.move_to(record.parts[:-1])
                finish(self._built.fd, record.parts[-1], record.mode, record.modified_ns)
        finally:
            self._before.close()
            self._built.close()

    def _make(self, record: Record) -> None:
        name, here = record.parts[-1], self._built.fd
        if record.kind == "directory":
            os.mkdir(name, 0o700, dir_fd=here)
        elif record.kind == "symlink":
            os.symlink(record.content, name, dir_fd=here)
        elif record.kind == "other":
            # Stands for whatever it is: it is reported, never carried over.
            kind = stat.S_IFSOCK if record.content == SOCKET else stat.S_IFIFO
            os.mknod(name, kind | 0o600, dir_fd=here)
        elif self._same.get(record.parts) == record:
            self._before.move_to(record.parts[:-1])
            os.link(name, name, src_dir_fd=self._before.fd, dst_dir_fd=here, follow_symlinks=False)
        else:
            self._make_file(record)

    def _make_file(self, record: Record) -> None:
        name = record.parts[-1]
        writing = os.open(name, NEW_FILE, 0o600, dir_fd=self._built.fd)
        try:
            if record.content in self._held:
                self._copy(self._held[record.content], writing)
            else:
                self._receive(record, writing)
        finally:
            os.close(writing)
        finish(self._built.fd, name, record.mode, record.modified_ns)

    def _copy(self, parts: tuple[bytes, ...], writing: int) -> None:
        self._before.move_to(parts[:-1])
        reading = open_file(self._before.fd, parts[-1], unlock=True)
        try:
            copy_bytes(reading, writing)
        finally:
            os.close(reading)

    def _receive(self, record: Record, writing: int) -> None:
        digest, offset = hashlib.sha256(), 0
        while offset < record.size:
            part = self._fetch(record, offset)
            if not part or offset + len(part) > record.size:
                raise Torn
            digest.update(part)
            write_sparse(writing, part)
            offset += len(part)
        os.ftruncate(writing, offset)
        if digest.digest() != record.content:
            raise Torn


def _is_stand_in(path: tuple[bytes, ...], surveyed: Sequence[Record], first: Sequence[Record]) -> bool:
    there = [record for record in surveyed if _below(record.parts, path)]
    was = next((record for record in first if record.parts == path), None)
    return (
        was is not None
        and len(there) == 1
        and (there[0].kind, there[0].size, there[0].mode) == (was.kind, 0, was.mode)
    )


def _below(parts: tuple[bytes, ...], path: tuple[bytes, ...]) -> bool:
    return parts[: len(path)] == path


def _dispose(place: Path, descriptor: int) -> None:
    os.close(descriptor)
    remove_tree(str(place))

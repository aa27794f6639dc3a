"""A second container beside a sandbox's own: it keeps the workspace's volume and tells what is in it.

A volume in the engine's memory is there as long as a container uses it. This one uses it from before the
tree is sent until after everything that commands have started is dead; nothing of theirs ever runs in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import anyio.from_thread
import anyio.to_thread

from sandboxes.channel import Channel
from sandboxes.docker.config import Plan, holder_body
from sandboxes.docker.container import Container
from sandboxes.docker.engine import Engine
from sandboxes.docker.handshake import LIFETIME_SECONDS, greet
from sandboxes.docker.program import GuestProgram, holder_program
from sandboxes.docker.relay import Relay
from sandboxes.docker.shipment import Record
from sandboxes.errors import SandboxDied, SandboxError, SandboxIntegrity

SEND_SECONDS: Final = 120.0
_ANSWER_SECONDS: Final = 60.0
_PART_BYTES: Final = 8 * 1024 * 1024
_LINKS_AT_ONCE: Final = 1000
_KINDS: Final = frozenset({"file", "directory", "symlink", "other"})
_DIGEST_BYTES: Final = 32
_NAME_BYTES: Final = 255
_TARGET_BYTES: Final = 4096


class Holder:
    """The holder of one sandbox."""

    def __init__(self, container: Container, program: GuestProgram) -> None:
        self._container = container
        self._program = program
        self._relay: Relay | None = None
        self._channel: Channel | None = None

    @classmethod
    async def create(cls, engine: Engine, plan: Plan) -> Holder:
        """Make the container, and with it the volume."""
        program = await anyio.to_thread.run_sync(holder_program)
        body = holder_body(plan, program.code)
        return cls(await Container.create(engine, body, name=f"{plan.name}-holder"), program)

    async def open(self, mount: str) -> None:
        """Start it and have it answer.

        Raises:
            SandboxError: It does not.
        """
        relay = self._relay = Relay(await self._container.attach())
        await self._container.start()
        relay.connection.setblocking(False)
        hello = {"mount": mount, "lifetime_seconds": LIFETIME_SECONDS, "strategy": "copy"}
        try:
            await greet(relay.connection, hello, program=self._program)
        except SandboxError as error:
            error.hint = relay.said()[-300:] or error.hint
            raise
        self._channel = Channel(relay.connection, on_broken=self._give_up)

    async def send(self, mount: str, pieces: Iterator[bytes]) -> None:
        """Put a tar into the volume."""
        await self._container.put(mount, pieces, seconds=SEND_SECONDS)

    async def make_links(self, records: Sequence[Record], *, uid: int) -> None:
        """Make the links of a tree in a volume that is still empty: an engine unpacks none that leads out."""
        links = [record for record in records if record.kind == "symlink"]
        for start in range(0, len(links), _LINKS_AT_ONCE):
            batch = links[start : start + _LINKS_AT_ONCE]
            words = [[list(record.parts), record.content, record.modified_ns] for record in batch]
            if (await self._call("links", {"links": words, "uid": uid})).get("k") != "made":
                raise self._disbelieved("an answer")

    async def survey(self, *, at_rest: bool, most_entries: int) -> tuple[Record, ...]:
        """Tell what the volume holds. ``at_rest``: no command can have run since the last survey began.

        Raises:
            SandboxError: The holder is gone, says what cannot be, or there is more than there may be.
        """
        records: list[Record] = []
        directories: list[tuple[bytes, ...]] = [()]
        fields: dict[str, Any] = {"afresh": True, "at_rest": at_rest}
        while True:
            reply = await self._call("survey", fields)
            entries, more = reply.get("entries"), reply.get("more")
            if reply.get("k") != "survey" or not isinstance(entries, list) or not isinstance(more, bool):
                raise self._disbelieved("a survey")
            for raw in entries:
                records.append(self._record(raw, directories))
                if records[-1].kind == "directory":
                    directories.append(records[-1].parts)
            if len(records) > most_entries:
                raise SandboxDied("the workspace holds more entries than it may")
            if not more:
                return tuple(records)
            fields = {"afresh": False, "at_rest": False}

    async def part(self, record: Record, offset: int) -> bytes:
        """Return the next bytes of a file; nothing when it is gone."""
        fields = {"names": list(record.parts), "offset": offset, "max_bytes": _PART_BYTES}
        reply = await self._call("part", fields)
        data = reply.get("data")
        if reply.get("k") != "part" or not isinstance(data, bytes) or len(data) > _PART_BYTES:
            raise self._disbelieved("a part")
        return data

    def remove_now(self) -> None:
        """Remove the container, in this thread."""
        self._container.remove_now()

    def let_go(self) -> None:
        """End the channel at once: the holder then ends by itself."""
        if self._channel is not None:
            self._channel.close()
        elif self._relay is not None:
            self._relay.connection.close()
        if self._relay is not None:
            self._relay.close()

    def _give_up(self) -> str | None:
        if self._relay is None:
            return None
        self._relay.close()
        return self._relay.said()[-300:] or None

    async def _call(self, operation: str, fields: dict[str, Any]) -> dict[str, Any]:
        if self._channel is None:
            raise SandboxError("the holder is not open")
        return await self._channel.call(operation, fields, timeout_seconds=_ANSWER_SECONDS)

    def _record(self, raw: object, directories: list[tuple[bytes, ...]]) -> Record:
        match raw:
            case [int(number), bytes(name), str(kind), int(mode), int(size), int(time), bytes(content)]:
                fits = (
                    0 <= number < len(directories)
                    and _is_name(name)
                    and kind in _KINDS
                    and size >= 0
                    and _is_content(kind, content)
                )
                if fits:
                    parts = (*directories[number], name)
                    return Record(parts, kind, mode & 0o777, size, time, content)  # type: ignore[arg-type]
        raise self._disbelieved("an entry")

    def _disbelieved(self, what: str) -> SandboxError:
        error = SandboxIntegrity(f"the holder of the workspace sent {what} that is none")
        return error if self._channel is None else self._channel.fail(error)


def _is_content(kind: str, content: bytes) -> bool:
    if kind == "file":
        return len(content) == _DIGEST_BYTES
    if kind == "symlink":
        return 0 < len(content) <= _TARGET_BYTES and b"\0" not in content
    return not content


def _is_name(name: bytes) -> bool:
    return (
        0 < len(name) <= _NAME_BYTES and name not in (b".", b"..") and b"/" not in name and b"\0" not in name
    )


def blocking_fetch(holder: Holder) -> Callable[[Record, int], bytes]:
    """Return what a thread of anyio's fetches content with."""

    def fetch(record: Record, offset: int) -> bytes:
        return anyio.from_thread.run(holder.part, record, offset)

    return fetch

"""Calls over the guest's channel: a reply that nobody asked for means that nothing can be believed any more.

There is no reader task. Whichever call waits first reads for all of them, and passes that on when its own
answer came; a single call in flight therefore costs one send and one receive.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio

from sandboxes.errors import SandboxDied, SandboxError, SandboxIntegrity, SandboxUnresponsive
from sandboxes.guest.frames import NONCE_BYTES, FrameError, FrameReader, decode_payload, frame_pieces

_CANCEL_GRACE_SECONDS = 5.0


class _Call:
    __slots__ = ("reply", "turn")

    def __init__(self) -> None:
        self.reply: dict[str, Any] | None = None
        self.turn: anyio.Event | None = None


class Channel:
    """The host's end of the channel; ``on_broken`` is called once and may say why it cannot be used."""

    def __init__(self, connection: socket.socket, *, on_broken: Callable[[], str | None]) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._on_broken = on_broken
        self._reader = FrameReader()
        self._calls: dict[bytes, _Call] = {}
        self._reading = False
        self._writing = anyio.Lock(fast_acquire=True)
        self._broken: SandboxError | None = None

    async def call(
        self, operation: str, fields: Mapping[str, Any], *, timeout_seconds: float, cancellable: bool = False
    ) -> dict[str, Any]:
        """Ask the guest and return its reply.

        Raises:
            SandboxDied: The guest ended.
            SandboxUnresponsive: No answer within the deadline.
            SandboxIntegrity: The channel carried what nobody asked for.
            SandboxError: The request cannot be put into a frame; nothing was sent.
        """
        self._require_quiet()
        nonce = secrets.token_bytes(NONCE_BYTES)
        pieces = _request({**fields, "n": nonce, "o": operation})
        call = self._calls[nonce] = _Call()
        try:
            with anyio.move_on_after(timeout_seconds):
                await self._send(pieces)
                return await self._reply(call)
        except anyio.get_cancelled_exc_class():
            await self._abandon(nonce, call, cancellable=cancellable)
            raise
        finally:
            del self._calls[nonce]
        raise self._break(SandboxUnresponsive(f"no answer to {operation} in {timeout_seconds:.0f} s"))

    def fail(self, error: SandboxError) -> SandboxError:
        """Break the channel for a reason that its user found; returns the error to raise."""
        return self._break(error)

    def close(self) -> None:
        """Close the connection; calls still waiting end as if the guest had died."""
        if self._broken is None:
            self._broken = SandboxDied("the sandbox was closed")
        anyio.notify_closing(self._connection)
        self._connection.close()
        self._wake_everyone()

    def _require_quiet(self) -> None:
        """Look for what came while nobody waited."""
        if self._broken is None and not self._calls:
            self._read_available()
        if self._broken is not None:
            raise self._broken

    async def _send(self, pieces: list[bytes]) -> None:
        sent = 0 if self._writing.locked() else self._send_some(pieces)
        if sent < sum(map(len, pieces)):
            await self._send_rest(_without(pieces, sent))

    async def _send_rest(self, rest: list[memoryview]) -> None:
        # A frame that was begun must be finished, or the stream means nothing any more.
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_GRACE_SECONDS) as limit:
            async with self._writing:
                while rest:
                    await anyio.wait_writable(self._connection)
                    rest = _without(rest, self._send_some(rest))
        if limit.cancelled_caught:
            raise self._break(SandboxUnresponsive("the guest does not read its requests"))

    def _send_some(self, pieces: Sequence[bytes | memoryview]) -> int:
        try:
            if len(pieces) == 1:
                return self._connection.send(pieces[0])
            return self._connection.sendmsg(pieces)
        except BlockingIOError:
            return 0
        except OSError:
            raise self._break(SandboxDied("the guest ended")) from None

    async def _reply(self, call: _Call) -> dict[str, Any]:
        while call.reply is None:
            if self._broken is not None:
                raise self._broken
            if self._reading:
                call.turn = anyio.Event()
                await call.turn.wait()
            else:
                await self._read_until_answered(call)
        return call.reply

    async def _read_until_answered(self, call: _Call) -> None:
        self._reading = True
        try:
            while True:
                self._read_available()
                if call.reply is not None or self._broken is not None:
                    return
                await anyio.wait_readable(self._connection)
        except (anyio.ClosedResourceError, OSError):
            raise self._break(SandboxDied("the sandbox was closed")) from None
        finally:
            self._reading = False
            self._pass_on()

    def _read_available(self) -> None:
        try:
            while True:
                count = self._connection.recv_into(self._reader.room())
                if count == 0:
                    self._break(SandboxDied("the guest ended"))
                    return
                payload = self._reader.filled(count)
                if payload is not None:
                    self._deliver(decode_payload(payload))
        except BlockingIOError:
            return
        except FrameError as error:
            self._break(SandboxIntegrity(f"the guest sent no proper frame: {error}"))
        except OSError:
            self._break(SandboxDied("the guest ended"))

    def _deliver(self, reply: dict[str, Any]) -> None:
        nonce = reply.get("n")
        call = self._calls.get(nonce) if isinstance(nonce, bytes) else None
        if call is None or call.reply is not None:
            self._break(SandboxIntegrity("the guest sent a frame that nobody asked for"))
            return
        call.reply = reply
        if call.turn is not None:
            call.turn.set()

    def _pass_on(self) -> None:
        for call in self._calls.values():
            if call.reply is None and call.turn is not None and not call.turn.is_set():
                call.turn.set()
                return

    async def _abandon(self, nonce: bytes, call: _Call, *, cancellable: bool) -> None:
        """Take in the answer to a call that nobody waits for any more, so that the channel stays in order."""
        if self._broken is not None:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_GRACE_SECONDS):
            if cancellable:
                await self._send(
                    frame_pieces({"n": secrets.token_bytes(NONCE_BYTES), "o": "cancel", "of": nonce})
                )
            try:
                await self._reply(call)
            except SandboxError:
                return
        if call.reply is None:
            self._break(SandboxUnresponsive("a cancelled call could not be ended"))

    def _break(self, error: SandboxError) -> SandboxError:
        if self._broken is None:
            self._broken = error
            error.hint = self._on_broken() or error.hint
            self._wake_everyone()
        return self._broken

    def _wake_everyone(self) -> None:
        for call in self._calls.values():
            if call.turn is not None:
                call.turn.set()


def _request(fields: dict[str, Any]) -> list[bytes]:
    try:
        return frame_pieces(fields)
    except FrameError as error:
        raise SandboxError(f"a request cannot be sent: {error}") from error


def _without(pieces: Sequence[bytes | memoryview], sent: int) -> list[memoryview]:
    """Return what is left of pieces of which so many bytes were sent."""
    left = []
    for piece in pieces:
        if sent < len(piece):
            left.append(memoryview(piece)[sent:])
        sent = max(0, sent - len(piece))
    return left

"""A guest that answers anything but what it was asked, once, is never believed again."""

from __future__ import annotations

import socket

import anyio
import pytest

from sandboxes.channel import Channel
from sandboxes.errors import SandboxDied, SandboxError, SandboxIntegrity, SandboxUnresponsive
from sandboxes.guest.frames import FrameReader, decode_payload, encode_frame

pytestmark = pytest.mark.anyio


class FakeGuest:
    """The other end of a channel, with what the host's end did when it broke."""

    def __init__(self):
        ours, self.socket = socket.socketpair()
        self.socket.setblocking(False)
        self.kills = 0
        self.channel = Channel(ours, on_broken=self._on_broken)
        self._reader = FrameReader()

    def _on_broken(self):
        self.kills += 1

    async def request(self):
        while True:
            await anyio.wait_readable(self.socket)
            payload = self._reader.filled(self.socket.recv_into(self._reader.room()))
            if payload is not None:
                return decode_payload(payload)

    async def send(self, data):
        rest = memoryview(data)
        while rest:
            await anyio.wait_writable(self.socket)
            rest = rest[self.socket.send(rest) :]

    async def answer(self, request, **fields):
        await self.send(encode_frame({"n": request["n"], **fields}))


@pytest.fixture
async def guest():
    fake = FakeGuest()
    yield fake
    fake.channel.close()
    fake.socket.close()


async def ask(guest, *, timeout_seconds=5.0):
    return await guest.channel.call("ping", {}, timeout_seconds=timeout_seconds)


async def expect(guest, error, behave, *, timeout_seconds=5.0):
    """Ask once while the guest behaves as told; the error must come now and for every later call."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(behave)
        with pytest.raises(error):
            await ask(guest, timeout_seconds=timeout_seconds)
        tasks.cancel_scope.cancel()
    with pytest.raises(SandboxError):
        await ask(guest)
    assert guest.kills == 1


async def test_an_answer_with_the_right_nonce_is_returned(guest):
    async def behave():
        await guest.answer(await guest.request(), k="pong")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(behave)
        reply = await ask(guest)

    assert reply["k"] == "pong"
    assert guest.kills == 0


@pytest.mark.parametrize("nonce", [b"x" * 16, b"", "text", 5, None])
async def test_an_answer_with_another_nonce_breaks_the_sandbox(guest, nonce):
    async def behave():
        await guest.request()
        await guest.send(encode_frame({"n": nonce, "k": "pong"}))

    await expect(guest, SandboxIntegrity, behave)


async def test_an_answer_without_a_nonce_breaks_the_sandbox(guest):
    async def behave():
        await guest.request()
        await guest.send(encode_frame({"k": "pong"}))

    await expect(guest, SandboxIntegrity, behave)


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x02xx", b"GET / HTTP/1.1\r\n"])
async def test_bytes_that_are_no_frame_break_the_sandbox(guest, data):
    async def behave():
        await guest.request()
        await guest.send(data)

    await expect(guest, SandboxIntegrity, behave)


async def test_a_second_answer_breaks_the_sandbox(guest):
    async def behave():
        request = await guest.request()
        frame = encode_frame({"n": request["n"], "k": "pong"})
        await guest.send(frame + frame)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(behave)
        with pytest.raises(SandboxIntegrity):  # noqa: PT012 (at the first or the second call)
            await ask(guest)
            await ask(guest)
        tasks.cancel_scope.cancel()

    assert guest.kills == 1


async def test_a_frame_that_comes_while_nobody_asks_breaks_the_sandbox_at_the_next_call(guest):
    await guest.send(encode_frame({"n": b"0" * 16, "k": "pong"}))

    with pytest.raises(SandboxIntegrity):
        await ask(guest)

    assert guest.kills == 1


async def test_a_recorded_answer_cannot_be_replayed(guest):
    recorded = []

    async def behave():
        request = await guest.request()
        recorded.append(encode_frame({"n": request["n"], "k": "pong"}))
        await guest.send(recorded[0])
        await guest.request()
        await guest.send(recorded[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(behave)
        await ask(guest)
        with pytest.raises(SandboxIntegrity):
            await ask(guest)


async def test_the_end_of_the_channel_means_the_guest_died(guest):
    async def behave():
        await guest.request()
        guest.socket.close()

    await expect(guest, SandboxDied, behave)


async def test_an_end_in_the_middle_of_an_answer_means_the_guest_died(guest):
    async def behave():
        request = await guest.request()
        await guest.send(encode_frame({"n": request["n"], "k": "pong"})[:-3])
        guest.socket.close()

    await expect(guest, SandboxDied, behave)


async def test_no_answer_in_time_means_the_guest_is_unresponsive(guest):
    async def behave():
        await guest.request()
        await anyio.sleep(30)

    await expect(guest, SandboxUnresponsive, behave, timeout_seconds=0.1)


async def test_half_an_answer_in_time_means_the_guest_is_unresponsive(guest):
    async def behave():
        await guest.request()
        await guest.send(b"\0\0\1\0half")
        await anyio.sleep(30)

    await expect(guest, SandboxUnresponsive, behave, timeout_seconds=0.1)


async def test_answers_may_come_in_any_order(guest):
    got = {}

    async def call(number):
        got[number] = await guest.channel.call("ping", {"number": number}, timeout_seconds=5)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(call, number)
        requests = [await guest.request() for _ in range(20)]
        for request in reversed(requests):
            await guest.answer(request, number=request["number"])

    assert {number: reply["number"] for number, reply in got.items()} == {n: n for n in range(20)}


async def test_when_the_guest_dies_every_waiting_call_ends(guest):
    ended = []

    async def call():
        with pytest.raises(SandboxDied):
            await ask(guest)
        ended.append(True)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(call)
        for _ in range(5):
            await guest.request()
        guest.socket.close()

    assert len(ended) == 5
    assert guest.kills == 1


async def test_a_cancelled_call_is_told_to_the_guest_and_leaves_the_channel_in_order(guest):
    async def behave():
        first = await guest.request()
        cancel = await guest.request()
        assert (cancel["o"], cancel["of"]) == ("cancel", first["n"])
        await guest.answer(first, k="late")
        await guest.answer(await guest.request(), k="pong")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(behave)
        with anyio.move_on_after(0.05):
            await guest.channel.call("exec", {}, timeout_seconds=5, cancellable=True)
        reply = await ask(guest)

    assert reply["k"] == "pong"
    assert guest.kills == 0


async def test_the_call_that_reads_for_others_may_be_cancelled(guest):
    scopes = anyio.CancelScope()
    replies = []

    async def reader():
        with scopes:
            await guest.channel.call("exec", {}, timeout_seconds=5, cancellable=True)

    async def follower():
        replies.append(await ask(guest))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        first = await guest.request()
        tasks.start_soon(follower)
        second = await guest.request()
        scopes.cancel()
        await guest.request()
        await guest.answer(second, k="pong")
        await guest.answer(first, k="late")

    assert [reply["k"] for reply in replies] == ["pong"]
    assert guest.kills == 0


async def test_a_large_request_passes_a_guest_that_reads_slowly(guest):
    data = b"x" * (4 << 20)
    seen = []

    async def behave():
        request = await guest.request()
        seen.append(len(request["data"]))
        await guest.answer(request, k="pong")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(behave)
        await guest.channel.call("write", {"data": data}, timeout_seconds=10)

    assert seen == [len(data)]

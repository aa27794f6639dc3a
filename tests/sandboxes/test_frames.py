"""One value has one encoding; everything else is refused, in bounded time and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.guest.frames import (
    MAX_FRAME_BYTES,
    FrameError,
    FrameReader,
    decode_payload,
    encode_frame,
    frame_length,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary() | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)

_KEY_A = b"d\0\0\0\1\0\0\0\1a"


@given(st.dictionaries(TEXT, st.lists(SCALARS, max_size=3) | SCALARS, max_size=6))
def test_what_was_encoded_is_decoded(value):
    frame = encode_frame(value)

    assert frame_length(frame[:4]) == len(frame) - 4
    assert decode_payload(frame[4:]) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_either_the_one_encoding_or_refused(payload):
    try:
        value = decode_payload(payload)
    except FrameError:
        return

    assert encode_frame(value)[4:] == payload


@given(st.dictionaries(TEXT, SCALARS, min_size=1, max_size=4), st.data())
def test_a_changed_byte_is_refused_or_is_another_value(value, data):
    payload = bytearray(encode_frame(value)[4:])
    position = data.draw(st.integers(0, len(payload) - 1))
    payload[position] ^= data.draw(st.integers(1, 255))

    try:
        changed = decode_payload(payload)
    except FrameError:
        return

    assert encode_frame(changed)[4:] == payload


@given(st.dictionaries(TEXT, VALUES, max_size=3), st.integers(1, 7))
def test_a_stream_is_cut_at_its_frames_however_it_arrives(value, step):
    try:
        stream = encode_frame(value) * 3
    except FrameError:
        return
    reader = FrameReader()
    found = []

    while stream:
        room = reader.room()
        count = min(step, len(room), len(stream))
        room[:count] = stream[:count]
        stream = stream[count:]
        payload = reader.filled(count)
        if payload is not None:
            found.append(decode_payload(payload))

    assert found == [value] * 3
    assert reader.idle


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"d",
        b"d\0\0\0\0 ",
        b"l\0\0\0\0",
        _KEY_A,
        _KEY_A + b"i" + bytes(7),
        _KEY_A + b"i" + bytes(9),
        _KEY_A + b"b\0\0\0\5x",
        _KEY_A + b"b\xff\xff\xff\xffx",
        _KEY_A + b"x\0\0\0\0",
        _KEY_A + b"l\xff\xff\xff\xffn",
        _KEY_A + b"l\0\0\0\1" * 100 + b"n",
        b"d\xff\xff\xff\xff\0\0\0\1an",
        b"d\0\0\0\2\0\0\0\1bn\0\0\0\1an",
        b"d\0\0\0\2\0\0\0\1an\0\0\0\1an",
        b"d\0\0\0\1\0\0\0\0d" * 50,
    ],
)
def test_a_payload_that_is_not_canonical_is_refused(payload):
    with pytest.raises(FrameError):
        decode_payload(payload)


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_an_impossible_length_is_refused_before_anything_is_allocated(length):
    reader = FrameReader()
    reader.room()[:] = length.to_bytes(4, "big")

    with pytest.raises(FrameError):
        reader.filled(4)


@pytest.mark.parametrize("value", [{"a": 1.5}, {1: 2}, {"a": 2**63}, {"a": object()}, {"a": "\ud800"}])
def test_a_value_outside_the_language_cannot_be_sent(value):
    with pytest.raises(FrameError):
        encode_frame(value)


def test_text_that_is_not_utf8_keeps_its_bytes():
    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")

    assert decode_payload(encode_frame({"path": odd})[4:]) == {"path": odd}

"""The only language between host and guest: length-prefixed frames around one canonical binary encoding.

A frame is a big-endian 32-bit length and that many bytes. The payload is one dictionary; values are ``None``,
booleans, integers of 64 bits, bytes, text, lists and dictionaries with text keys in ascending order. One
value has one encoding, nothing is optional, nothing can be executed, and bytes travel as bytes. Text carries
bytes that are not UTF-8 as surrogate escapes.

A value is one byte for its kind and what follows from that: ``n t f`` nothing, ``i`` 8 bytes of integer,
``b s`` a 32-bit length and the bytes, ``l`` a 32-bit count and the members, ``d`` a count and for each key
its length, its bytes and the value. All numbers are big-endian.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # importing typing costs more than this module
if TYPE_CHECKING:
    from typing import Any

MAX_FRAME_BYTES = 68 * 1024 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 8
PREFIX_BYTES = 4
NONCE_BYTES = 16

_NONE, _TRUE, _FALSE, _INTEGER, _BYTES, _TEXT, _LIST, _DICTIONARY = b"ntfibsld"
_LENGTH = struct.Struct(">I")
_KIND_AND_LENGTH = struct.Struct(">BI")
_KIND_AND_NUMBER = struct.Struct(">Bq")
_NUMBER = struct.Struct(">q")
# From here on a slice through a view saves a copy that is worth more than making the view.
_LONG_BYTES = 4096

_long_bytes: Any = bytes


def decode_to_views() -> None:
    """Let long bytes, from here on, be views of their payload: for whoever only passes them on."""
    global _long_bytes
    _long_bytes = memoryview


class FrameError(ValueError):
    """The bytes are not one frame of this language."""


def encode_frame(value: dict[str, Any]) -> bytes:
    """Return the frame for a dictionary, prefix included."""
    return b"".join(frame_pieces(value))


def frame_pieces(value: dict[str, Any]) -> list[Any]:
    """Return the frame for a dictionary in as few pieces as it has without copying what is long."""
    parts: list[Any] = [b""]
    _encode_container(value, parts, 0)
    sizes = [len(part) for part in parts]
    size = sum(sizes)
    if size > MAX_FRAME_BYTES:
        raise FrameError("frame of %d bytes is longer than %d" % (size, MAX_FRAME_BYTES))
    parts[0] = _LENGTH.pack(size)
    if size < _LONG_BYTES:
        return [b"".join(parts)]
    return _joined_between_long_ones(parts, sizes)


def frame_length(prefix: bytes | bytearray) -> int:
    """Return the payload length that a prefix announces.

    Raises:
        FrameError: The length is zero or more than a frame may have.
    """
    length = int.from_bytes(prefix, "big")
    if not 0 < length <= MAX_FRAME_BYTES:
        raise FrameError("frame length %d is out of bounds" % length)
    return length


def decode_payload(payload: bytes | bytearray) -> dict[str, Any]:
    """Return the dictionary that a payload holds.

    Raises:
        FrameError: Anything but exactly one canonical encoding of a dictionary.
    """
    if payload[:1] != b"d":
        raise FrameError("payload is no dictionary")
    try:
        value, end = _decode_dictionary(payload, 1, 0)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise FrameError("truncated or undecodable payload") from error
    if end != len(payload):
        raise FrameError("%d bytes after the value" % (len(payload) - end))
    return value


class FrameReader:
    """Cuts a byte stream into payloads, with a buffer no longer than the frame that was announced.

    Read into ``room()``, then tell ``filled()`` how much came; it returns the payload once it is whole.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(PREFIX_BYTES)
        self._have = 0
        self._in_body = False

    @property
    def idle(self) -> bool:
        """Whether the stream stands between two frames."""
        return not self._in_body and self._have == 0

    def room(self) -> memoryview:
        """Return where the next bytes belong."""
        return memoryview(self._buffer)[self._have :]

    def filled(self, count: int) -> bytearray | None:
        """Account for ``count`` bytes read into ``room()``.

        Raises:
            FrameError: A prefix announces an impossible length.
        """
        self._have += count
        if self._have < len(self._buffer):
            return None
        whole = self._buffer
        self._have = 0
        if self._in_body:
            self._buffer = bytearray(PREFIX_BYTES)
            self._in_body = False
            return whole
        self._buffer = bytearray(frame_length(whole))
        self._in_body = True
        return None


def _encode(value: Any, parts: list[Any], depth: int) -> None:
    if isinstance(value, str):
        raw = _text_bytes(value)
        parts.append(_KIND_AND_LENGTH.pack(_TEXT, len(raw)))
        parts.append(raw)
    elif value is None:
        parts.append(b"n")
    elif value is True:
        parts.append(b"t")
    elif value is False:
        parts.append(b"f")
    elif isinstance(value, int):
        try:
            parts.append(_KIND_AND_NUMBER.pack(_INTEGER, value))
        except struct.error as error:
            raise FrameError("integer does not fit in 64 bits") from error
    elif isinstance(value, (bytes, bytearray, memoryview)):
        parts.append(_KIND_AND_LENGTH.pack(_BYTES, len(value)))
        parts.append(value)
    else:
        _encode_container(value, parts, depth)


def _joined_between_long_ones(parts: list[Any], sizes: list[int]) -> list[Any]:
    pieces: list[Any] = []
    start = 0
    for index, size in enumerate(sizes):
        if size >= _LONG_BYTES:
            pieces.append(b"".join(parts[start:index]))
            pieces.append(parts[index])
            start = index + 1
    pieces.append(b"".join(parts[start:]))
    return pieces


def _encode_container(value: Any, parts: list[Any], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise FrameError("nested too deep")
    if isinstance(value, dict):
        parts.append(_KIND_AND_LENGTH.pack(_DICTIONARY, len(value)))
        for raw, key in sorted([(_text_bytes(key), key) for key in value]):
            parts.append(_LENGTH.pack(len(raw)))
            parts.append(raw)
            _encode(value[key], parts, depth + 1)
    elif isinstance(value, (list, tuple)):
        parts.append(_KIND_AND_LENGTH.pack(_LIST, len(value)))
        for item in value:
            _encode(item, parts, depth + 1)
    else:
        raise FrameError("type %s has no encoding" % type(value).__name__)


def _text_bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise FrameError("dictionary key is no text")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise FrameError("text holds a surrogate that is no escape") from error


def _decode_dictionary(data: bytes | bytearray, position: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth > MAX_DEPTH:
        raise FrameError("nested too deep")
    (count,) = _LENGTH.unpack_from(data, position)
    position += 4
    found: dict[str, Any] = {}
    last = None
    for _ in range(count):
        raw, position = _decode_bytes(data, position)
        if last is not None and raw <= last:
            raise FrameError("dictionary keys are not in ascending order")
        last = raw
        found[str(raw, "utf-8", "surrogateescape")], position = _decode(data, position, depth)
    return found, position


def _decode(data: bytes | bytearray, position: int, depth: int) -> tuple[Any, int]:
    kind = data[position]
    position += 1
    if kind == _TEXT:
        raw, position = _decode_bytes(data, position)
        return str(raw, "utf-8", "surrogateescape"), position
    if kind == _INTEGER:
        return _NUMBER.unpack_from(data, position)[0], position + 8
    if kind == _BYTES:
        return _decode_bytes(data, position)
    if kind == _NONE:
        return None, position
    if kind == _TRUE:
        return True, position
    if kind == _FALSE:
        return False, position
    if kind == _LIST:
        return _decode_list(data, position, depth + 1)
    if kind == _DICTIONARY:
        return _decode_dictionary(data, position, depth + 1)
    raise FrameError("unknown kind %#x" % kind)


def _decode_list(data: bytes | bytearray, position: int, depth: int) -> tuple[list[Any], int]:
    if depth > MAX_DEPTH:
        raise FrameError("nested too deep")
    (count,) = _LENGTH.unpack_from(data, position)
    position += 4
    items = []
    for _ in range(count):
        item, position = _decode(data, position, depth)
        items.append(item)
    return items, position


def _decode_bytes(data: bytes | bytearray, position: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(data, position)
    position += 4
    end = position + length
    if end > len(data):
        raise FrameError("length %d does not fit" % length)
    if length < _LONG_BYTES:
        return bytes(data[position:end]), end
    return _long_bytes(memoryview(data)[position:end]), end

"""The only language between host and guest: length-prefixed frames around one canonical binary encoding.

A frame is a big-endian 32-bit length and that many bytes. The payload is one dictionary; values are ``None``,
booleans, integers of 64 bits, bytes, text, lists and dictionaries with text keys in ascending order. One
value has one encoding, nothing is optional, nothing can be executed, and bytes travel as bytes. Text carries
bytes that are not UTF-8 as surrogate escapes.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs more than this module
if TYPE_CHECKING:
    from typing import Any

MAX_FRAME_BYTES = 68 * 1024 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 8
PREFIX_BYTES = 4
NONCE_BYTES = 16

_MAX_DIGITS = 20
_CONSTANTS = {0x6E: None, 0x74: True, 0x66: False}


class FrameError(ValueError):
    """The bytes are not one frame of this language."""


def encode_frame(value: dict[str, Any]) -> bytes:
    """Return the frame for a dictionary, prefix included."""
    parts: list[Any] = [b""]
    _encode(value, parts, 0)
    size = sum(map(len, parts))
    if size > MAX_FRAME_BYTES:
        raise FrameError("frame of %d bytes is longer than %d" % (size, MAX_FRAME_BYTES))
    parts[0] = size.to_bytes(PREFIX_BYTES, "big")
    return b"".join(parts)


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
    view = memoryview(payload)
    try:
        value, end = _decode(view, 0, 0)
    except (IndexError, UnicodeDecodeError) as error:
        raise FrameError("truncated or undecodable payload") from error
    if end != len(view):
        raise FrameError("%d bytes after the value" % (len(view) - end))
    if not isinstance(value, dict):
        raise FrameError("payload is no dictionary")
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
    if depth > MAX_DEPTH:
        raise FrameError("nested too deep")
    if value is None:
        parts.append(b"n")
    elif value is True:
        parts.append(b"t")
    elif value is False:
        parts.append(b"f")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise FrameError("integer does not fit in 64 bits")
        parts.append(b"i%de" % value)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        parts.append(b"b%d:" % len(value))
        parts.append(value)
    elif isinstance(value, str):
        raw = _text_bytes(value)
        parts.append(b"s%d:" % len(raw))
        parts.append(raw)
    elif isinstance(value, (list, tuple)):
        parts.append(b"l")
        for item in value:
            _encode(item, parts, depth + 1)
        parts.append(b"e")
    elif isinstance(value, dict):
        _encode_dictionary(value, parts, depth)
    else:
        raise FrameError("type %s has no encoding" % type(value).__name__)


def _encode_dictionary(value: dict[str, Any], parts: list[Any], depth: int) -> None:
    parts.append(b"d")
    for raw, key in sorted((_text_bytes(key), key) for key in value):
        parts.append(b"s%d:" % len(raw))
        parts.append(raw)
        _encode(value[key], parts, depth + 1)
    parts.append(b"e")


def _text_bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise FrameError("dictionary key is no text")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise FrameError("text holds a surrogate that is no escape") from error


def _decode(view: memoryview, position: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise FrameError("nested too deep")
    kind = view[position]
    position += 1
    if kind == 0x62 or kind == 0x73:  # b, s
        raw, position = _decode_bytes(view, position)
        return (raw if kind == 0x62 else str(raw, "utf-8", "surrogateescape")), position
    if kind == 0x69:  # i
        return _decode_number(view, position, 0x65)
    if kind == 0x6C:  # l
        items = []
        while view[position] != 0x65:
            item, position = _decode(view, position, depth + 1)
            items.append(item)
        return items, position + 1
    if kind == 0x64:  # d
        return _decode_dictionary(view, position, depth)
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], position
    raise FrameError("unknown kind %#x" % kind)


def _decode_dictionary(view: memoryview, position: int, depth: int) -> tuple[dict[str, Any], int]:
    found = {}
    last = None
    while view[position] != 0x65:
        if view[position] != 0x73:
            raise FrameError("dictionary key is no text")
        raw, position = _decode_bytes(view, position + 1)
        if last is not None and raw <= last:
            raise FrameError("dictionary keys are not in ascending order")
        last = raw
        found[str(raw, "utf-8", "surrogateescape")], position = _decode(view, position, depth + 1)
    return found, position + 1


def _decode_bytes(view: memoryview, position: int) -> tuple[bytes, int]:
    length, position = _decode_number(view, position, 0x3A)
    end = position + length
    if length < 0 or end > len(view):
        raise FrameError("length %d does not fit" % length)
    return bytes(view[position:end]), end


def _decode_number(view: memoryview, position: int, terminator: int) -> tuple[int, int]:
    end = position
    while view[end] != terminator:
        end += 1
        if end - position > _MAX_DIGITS:
            raise FrameError("number is too long")
    raw = bytes(view[position:end])
    digits = raw[1:] if raw[:1] == b"-" else raw
    if not digits.isdigit():
        raise FrameError("not a number")
    number = int(raw)
    if b"%d" % number != raw or not -(2**63) <= number < 2**63:
        raise FrameError("number is not in its one form")
    return number, end + 1

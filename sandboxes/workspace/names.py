"""File names as bytes, as text that keeps every byte, and as text that is safe to show.

A path travels as a string whose bytes outside UTF-8 are surrogate escapes (PEP 383), whatever the locale.
To show one, every character that could move a cursor, hide or reorder text is written as an escape; for
names that is reversible, so two names never look the same.
"""

from __future__ import annotations

import os
import re
import unicodedata

_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def to_bytes(path: str) -> bytes:
    """Give the bytes that the kernel knows a path by."""
    return path.encode("utf-8", "surrogateescape")


def to_text(path: bytes) -> str:
    """Give a path as text that `to_bytes` turns back exactly."""
    return path.decode("utf-8", "surrogateescape")


def parts_of(path: str) -> tuple[bytes, ...]:
    """Split a relative path into its components; ``"."`` has none."""
    return () if path == "." else tuple(to_bytes(path).split(b"/"))


def list_names(directory_fd: int) -> list[bytes]:
    """List an open directory in byte order."""
    return sorted(os.fsencode(name) for name in os.listdir(directory_fd))


def escape_name(path: str) -> str:
    r"""Write a path so that it can be shown: ``\xNN``, ``\uNNNN`` and ``\\`` stand for what cannot."""
    return _escape(path, also="\\")


def unescape_name(shown: str) -> str:
    """Give back the path that `escape_name` has written."""
    return _ESCAPE.sub(_unescaped, shown)


def escape_text(text: str) -> str:
    """Write one line of a file for a terminal; tabs stay, and the result is not meant to be turned back."""
    return _escape(text, also="", keep="\t")


def _escape(text: str, *, also: str, keep: str = "") -> str:
    # Nearly every name and line is plain ASCII: look closer only where it is not.
    if text.isascii() and text.isprintable() and not any(character in text for character in also):
        return text
    return "".join(
        character
        if character in keep
        or not (character in also or unicodedata.category(character) in _HIDDEN_CATEGORIES)
        else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _unescaped(match: re.Match[str]) -> str:
    byte, short, long = match.groups()
    if byte is not None:
        return to_text(bytes([int(byte, 16)]))
    if short is not None or long is not None:
        return chr(int(short or long, 16))
    return "\\"

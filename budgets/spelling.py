"""How a path is spelled in a sentence."""

from __future__ import annotations


def spelled(path: str) -> str:
    """Make a path fit for a sentence: printable, one line, bounded."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"

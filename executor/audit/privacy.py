"""Say what a call was asked with, without keeping it: a keyed digest and a short redacted preview.

The key is per journal and never leaves the run's directory, so that whoever gets the journal alone cannot
guess a path or a PIN by hashing candidates. The preview is a help for the reader; what it recognises as a
secret is a list of known shapes, and a secret of another shape stays in it.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from executor.audit.canonical import JsonValue, canonical, digestible
from executor.audit.errors import JournalError, KeyRefused
from executor.audit.signer import read_private

PREVIEW_CHARACTERS = 240
REDACTED = "[redacted]"
_KEY_BYTES = 32
_SECRET_NAME = re.compile(
    r"(?i)(pass(word|wd|phrase)?|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credential|authori[sz]ation|cookie)"
)
_END = r"(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)"
# Each pattern is tried only where the plain text before it occurs: a preview is made for every call.
_SECRET_TEXT: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("-----BEGIN ", re.compile(rf"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?{_END}", re.DOTALL)),
    ("k-", re.compile(r"\b[spr]k-[A-Za-z0-9_-]{16,}")),
    ("k_", re.compile(r"\b[spr]k_[A-Za-z0-9_-]{16,}")),
    ("gh", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{16,}")),
    ("github_pat_", re.compile(r"github_pat_[A-Za-z0-9_]{16,}")),
    ("glpat-", re.compile(r"glpat-[A-Za-z0-9_-]{16,}")),
    ("xox", re.compile(r"xox[abeoprs]-[A-Za-z0-9-]{8,}")),
    ("AKIA", re.compile(r"AKIA[A-Z0-9]{12,}")),
    ("AIza", re.compile(r"AIza[A-Za-z0-9_-]{20,}")),
    ("npm_", re.compile(r"npm_[A-Za-z0-9]{16,}")),
    ("hf_", re.compile(r"hf_[A-Za-z0-9]{16,}")),
    ("eyJ", re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?")),
    ("://", re.compile(r"(?<=://)[^\s/:@\"']*:[^\s/@\"']+(?=@)")),
)
_AUTHORIZATION = re.compile(r"(?i)(?:(?<=bearer )|(?<=basic ))[A-Za-z0-9._~+/=-]{8,}")
_ASSIGNMENT = re.compile(
    r"(?i)((?:password|passwd|passphrase|secret|token|api[-_]?key|access[-_]?key)[\"']?\s*[=:]\s*[\"']?)"
    r"[^\s\"'&;|]{3,}"
)
_OPTION = re.compile(r"(?i)(--?(?:password|passphrase|token|secret|api-key)\s+)[^\s&;|]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprints:
    """Digests and previews for one journal. Shows its key nowhere."""

    key_path: Path
    _key: bytes

    def __repr__(self) -> str:
        return f"Fingerprints(key_path={str(self.key_path)!r})"

    def digest(self, data: bytes) -> str:
        """Return the keyed digest of bytes, as ``hmac-sha256:`` and hex."""
        return f"hmac-sha256:{hmac.digest(self._key, data, sha256).hex()}"

    def arguments(self, arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return what ``call.decided`` says of a call's arguments. Any JSON value will do, floats too."""
        text, truncated = preview(arguments)
        digest = self.digest(canonical(digestible(arguments)))
        return {"digest": digest, "preview": text, "truncated": truncated}

    def matches(self, arguments: Mapping[str, JsonValue], digest: str) -> bool:
        """Tell whether a recorded digest is of these arguments."""
        return hmac.compare_digest(self.digest(canonical(digestible(arguments))), digest)

    @classmethod
    def create(cls, path: Path) -> Fingerprints:
        """Make a new key file that only this user can read.

        Raises:
            JournalError: It cannot be made.
        """
        key = secrets.token_bytes(_KEY_BYTES)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(key)
        except OSError as error:
            raise JournalError(f"{path}: the digest key cannot be made: {error.strerror}") from error
        return cls(key_path=path, _key=key)

    @classmethod
    def load(cls, path: Path) -> Fingerprints:
        """Read a key file.

        Raises:
            KeyRefused: It is missing, open to others, or of the wrong length.
        """
        key = read_private(path)
        if len(key) != _KEY_BYTES:
            raise KeyRefused(f"{path}: a digest key has {_KEY_BYTES} bytes, this one {len(key)}")
        return cls(key_path=path, _key=key)


def preview(arguments: Mapping[str, JsonValue]) -> tuple[str, bool]:
    """Return arguments as short text with known shapes of secrets taken out, and whether it was cut."""
    writing = _Preview()
    writing.members(arguments)
    return writing.finished()


def redact(text: str) -> str:
    """Replace what has a known shape of a secret."""
    for hint, pattern in _SECRET_TEXT:
        if hint in text:
            text = pattern.sub(REDACTED, text)
    lowered = text.lower()
    if "bearer " in lowered or "basic " in lowered:
        text = _AUTHORIZATION.sub(REDACTED, text)
    if "pass" in lowered or "secret" in lowered or "token" in lowered or "key" in lowered:
        text = _OPTION.sub(rf"\1{REDACTED}", _ASSIGNMENT.sub(rf"\1{REDACTED}", text))
    return text


@lru_cache(maxsize=1024)
def _names_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


class _Preview:
    """Writes values out until there is enough for a preview."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._room = PREVIEW_CHARACTERS
        self._cut = False

    def members(self, arguments: Mapping[str, JsonValue]) -> None:
        space = ""
        for name, value in arguments.items():
            if self._room <= 0:
                self._cut = True
                return
            self._put(f"{space}{redact(str(name)[:80])}=")
            if _names_secret(name):
                self._put(REDACTED)
            else:
                self._value(value)
            space = " "

    def finished(self) -> tuple[str, bool]:
        text = "".join(self._parts)
        cut = self._cut or len(text) > PREVIEW_CHARACTERS
        text = _printable(text[:PREVIEW_CHARACTERS])
        if len(text) > PREVIEW_CHARACTERS or cut:
            return text[: PREVIEW_CHARACTERS - 1] + "…", True
        return text, False

    def _value(self, value: JsonValue) -> None:
        if isinstance(value, str):
            # A secret that starts within the preview is seen whole, or at least long enough to know it.
            self._cut = self._cut or len(value) > 2 * PREVIEW_CHARACTERS
            self._put(redact(value[: 2 * PREVIEW_CHARACTERS]))
        elif isinstance(value, Mapping):
            self._put("{")
            self.members(value)
            self._put("}")
        elif isinstance(value, Sequence):
            self._items(value)
        else:
            self._put(str(value)[:40])

    def _items(self, value: Sequence[JsonValue]) -> None:
        self._put("[")
        for number, member in enumerate(value):
            if self._room <= 0:
                self._cut = True
                return
            self._put(", " if number else "")
            self._value(member)
        self._put("]")

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self._room -= len(text)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    text = text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

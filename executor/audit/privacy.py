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
_SECRET_TEXT = re.compile(
    r"""(?x)
    -----BEGIN\ [A-Z0-9 ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z0-9 ]*PRIVATE\ KEY-----|\Z)
    | \b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}
    | \bgh[pousr]_[A-Za-z0-9]{16,} | \bgithub_pat_[A-Za-z0-9_]{16,} | \bglpat-[A-Za-z0-9_-]{16,}
    | \bxox[abeoprs]-[A-Za-z0-9-]{8,} | \bAKIA[A-Z0-9]{12,} | \bAIza[A-Za-z0-9_-]{20,}
    | \bnpm_[A-Za-z0-9]{16,} | \bhf_[A-Za-z0-9]{16,}
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?
    | (?<=://)[^\s/:@"']*:[^\s/@"']+(?=@)
    | (?i:(?<=bearer\ )|(?<=basic\ ))[A-Za-z0-9._~+/=-]{8,}
    """,
    re.DOTALL,
)
_SECRET_ASSIGNMENT = re.compile(
    r"(?i)((?:password|passwd|secret|token|api[-_]?key|access[-_]?key)[\"']?\s*[=:]\s*[\"']?|--?(?:password|token|api-key)\s+)"
    r"[^\s\"'&;|]{3,}"
)


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
    parts: list[str] = []
    length = 0
    for name, value in arguments.items():
        shown = f"{redact(str(name)[:80])}={REDACTED if _SECRET_NAME.search(str(name)) else _shown(value)}"
        parts.append(shown)
        length += len(shown) + 1
        if length > PREVIEW_CHARACTERS:
            break
    text = _printable(" ".join(parts))
    if len(text) > PREVIEW_CHARACTERS:
        return text[: PREVIEW_CHARACTERS - 1] + "…", True
    return text, False


def redact(text: str) -> str:
    """Replace what has a known shape of a secret."""
    return _SECRET_ASSIGNMENT.sub(rf"\1{REDACTED}", _SECRET_TEXT.sub(REDACTED, text))


def _shown(value: JsonValue) -> str:
    """Write one value out, no more of it than a preview can hold."""
    if isinstance(value, str):
        return redact(value[: 4 * PREVIEW_CHARACTERS])
    if isinstance(value, Mapping):
        return "{" + preview(value)[0] + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_shown(member) for member in value[:20]) + "]"
    return str(value)[:40]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else _CONTROL.get(c, "\N{REPLACEMENT CHARACTER}") for c in text)


_CONTROL = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}

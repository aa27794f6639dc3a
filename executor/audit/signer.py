"""The Ed25519 key that signs checkpoints and receipts, and the verifier keys to check them with (C2SP)."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from executor.audit.errors import KeyRefused

_ED25519 = b"\x01"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifierKey:
    """A public key with the name it signs under, as in ``name+hash+base64``."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that stand before each signature of this key under this name."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    @property
    def text(self) -> str:
        """The key in C2SP vkey form."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether this key made the signature over the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a C2SP vkey.

        Raises:
            KeyRefused: It is not an Ed25519 vkey, or its hash does not fit its name and key.
        """
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise KeyRefused(
                f"not a verifier key: {text.strip()[:80]!r}", hint="it looks like name+hash+base64"
            )
        name, hash_text, encoded = parts
        try:
            material = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise KeyRefused(f"the verifier key of {name!r} is not base64") from error
        if len(material) != 33 or material[:1] != _ED25519:
            raise KeyRefused(f"the verifier key of {name!r} is not an Ed25519 key")
        key = cls(name=name, public=material[1:])
        if not is_key_name(name) or key.key_id.hex() != hash_text:
            raise KeyRefused(
                f"the verifier key of {name!r} has the hash {hash_text}, expected {key.key_id.hex()}"
            )
        return key


class Signer:
    """A private key in memory. It shows itself nowhere: neither in ``repr`` nor in an error."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Signer(public={self.public.hex()})"

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (RFC 8032) over the message."""
        return self._private.sign(message)

    def verifier(self, name: str) -> VerifierKey:
        """Return the public half under a key name."""
        return VerifierKey(name=name, public=self.public)

    @classmethod
    def generate(cls) -> Signer:
        """Make a new key that lives in memory only."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Signer:
        """Read a key file (PKCS #8 PEM, unencrypted).

        Raises:
            KeyRefused: It is missing, not only ours to read, or not an Ed25519 key.
        """
        text = read_private(path)
        try:
            private = serialization.load_pem_private_key(text, password=None)
        except (ValueError, TypeError) as error:
            raise KeyRefused(f"{path}: not a key in PEM form") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyRefused(f"{path}: not an Ed25519 key")
        return cls(private)

    @classmethod
    def load_or_create(cls, path: Path) -> Signer:
        """Read the key file, or make one for this user alone. Two processes that race get the same key.

        Raises:
            KeyRefused: See ``load``.
        """
        if not path.exists():
            _create_private(path)
        return cls.load(path)


def is_key_name(name: str) -> bool:
    """Tell whether a signed note can carry this key name: printable, without spaces or ``+``."""
    return bool(name) and name.isprintable() and not any(c.isspace() or c == "+" for c in name)


def read_private(path: Path) -> bytes:
    """Read a small file that nobody else may read.

    Raises:
        KeyRefused: It is missing, belongs to another user or can be read by others.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyRefused(f"{path}: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise KeyRefused(f"{path}: not a regular file")
        if status.st_uid != os.geteuid():
            raise KeyRefused(f"{path}: belongs to uid {status.st_uid}, not to {os.geteuid()}")
        if status.st_mode & 0o077:
            raise KeyRefused(
                f"{path}: mode {stat.S_IMODE(status.st_mode):04o} lets others at the key",
                hint=f"chmod 600 {path}",
            )
        return file.read(65536)


def _create_private(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # Written aside and linked into place: nobody reads half a key, and a second creator loses in peace.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return
    finally:
        os.unlink(aside)

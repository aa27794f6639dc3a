"""Signed tree heads (C2SP tlog-checkpoint in a signed note): what the journal held when, said by the key."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path

from executor.audit.signer import Signer, VerifierKey, is_key_name

MAX_NOTE_BYTES = 64 * 1024
_DASH = "\u2014"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """How many records a journal held, and the root over them. ``text`` is the whole signed note."""

    origin: str
    size: int
    root: bytes
    text: str

    @property
    def body(self) -> bytes:
        """The signed bytes: the note without its signatures."""
        return _body(self.origin, self.size, self.root).encode()

    def signed_by(self, key: VerifierKey) -> bool:
        """Tell whether the note carries a good signature of this key, under whatever name it signed with.

        A signature line with the key's own name and id that does not verify makes the whole note bad.
        """
        good = False
        for name, blob in _signatures(self.text):
            named = VerifierKey(name=name, public=key.public)
            if blob[:4] != named.key_id:
                continue
            if not named.verifies(self.body, blob[4:]):
                return False
            good = True
        return good

    def contradicts(self, other: Checkpoint) -> bool:
        """Tell whether both cannot come from one history: the same journal and size with different roots."""
        return self.origin == other.origin and self.size == other.size and self.root != other.root


def sign_checkpoint(signer: Signer, *, origin: str, size: int, root: bytes) -> Checkpoint:
    """Sign a tree head under the journal's origin as key name.

    Raises:
        ValueError: The origin cannot be a key name.
    """
    if not is_key_name(origin):
        raise ValueError(f"origin {origin!r} has a space, a plus or a control character")
    body = _body(origin, size, root)
    blob = signer.verifier(origin).key_id + signer.sign(body.encode())
    text = f"{body}\n{_DASH} {origin} {base64.b64encode(blob).decode()}\n"
    return Checkpoint(origin=origin, size=size, root=root, text=text)


def origin_of(run_id: str) -> str:
    """Return the name that a run's journal has in checkpoints and keys."""
    return f"remit/journals/{run_id}"


def store_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Put a checkpoint in a file of its own, whole or not at all."""
    aside = path.with_name(f".{path.name}.new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(checkpoint.text.encode())
        os.replace(aside, path)
    except OSError:
        os.unlink(aside)
        raise


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file. The signature is not checked here.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a checkpoint.
    """
    with path.open("rb") as file:
        return parse_checkpoint(file.read(MAX_NOTE_BYTES + 1).decode())


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a signed checkpoint. The signature is not checked here.

    Raises:
        ValueError: It is not a checkpoint in the form that is signed here (three lines, no extension).
    """
    if len(text) > MAX_NOTE_BYTES:
        raise ValueError(f"a checkpoint of {len(text)} characters")
    body, blank, _ = text.partition("\n\n")
    lines = body.split("\n")
    if not blank or len(lines) != 3:
        raise ValueError("a checkpoint has three lines, an empty one and signatures")
    origin, size_text, root_text = lines
    if not (size_text.isascii() and size_text.isdigit()) or (size_text[0] == "0" and size_text != "0"):
        raise ValueError(f"the tree size {size_text[:40]!r} is not a decimal number")
    if len(size_text) > 16:
        raise ValueError("the tree size is beyond 2^53")
    root = _decode(root_text)
    if not is_key_name(origin) or root is None or len(root) != 32:
        raise ValueError("a checkpoint has an origin without spaces and a root of 32 bytes")
    checkpoint = Checkpoint(origin=origin, size=int(size_text), root=root, text=text)
    if not _signatures(text):
        raise ValueError("a checkpoint carries at least one signature")
    return checkpoint


def _body(origin: str, size: int, root: bytes) -> str:
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def _signatures(text: str) -> list[tuple[str, bytes]]:
    found = []
    for line in text.partition("\n\n")[2].splitlines():
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != _DASH:
            continue
        blob = _decode(parts[2])
        if blob is not None and len(blob) > 4:
            found.append((parts[1], blob))
    return found[:64]


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None

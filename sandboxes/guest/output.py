"""Keep head and tail of a command's output, and count and digest all of it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Digest(Protocol):
        """What hashlib's objects offer."""

        def update(self, data: Any, /) -> None:  # noqa: D102
            ...

        def hexdigest(self) -> str:  # noqa: D102
            ...


# Loading OpenSSL takes milliseconds and a megabyte; it pays for long output only.
_FAST_DIGEST_FROM_BYTES = 1 << 20

# A module that is not there is looked for anew at every import: once is enough.
_plain_sha256: Callable[[], Digest] | None = None


def new_sha256(fast: bool = False) -> Digest:
    """Return a SHA-256 object without importing hashlib, which loads OpenSSL."""
    if fast:
        try:
            from _hashlib import openssl_sha256
        except ImportError:
            pass
        else:
            return openssl_sha256()
    global _plain_sha256
    if _plain_sha256 is None:
        _plain_sha256 = _load_plain_sha256()
    return _plain_sha256()


def _load_plain_sha256() -> Callable[[], Digest]:
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found]
        except ImportError:
            from hashlib import sha256
    return sha256  # type: ignore[no-any-return]


class Output:
    """What came out of one command, in bounded memory.

    Up to ``keep`` bytes are kept: everything when it fits, else the first half and the last half.
    """

    def __init__(self, keep: int) -> None:
        self.total = 0
        self._keep = keep
        self._head = bytearray()
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._undigested: list[bytes] | None = []
        self._digest: Digest | None = None

    def add(self, data: bytes) -> None:
        """Take the next piece."""
        self.total += len(data)
        self._add_to_digest(data)
        room = self._keep - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_bytes += len(data)
            while self._tail and self._tail_bytes - len(self._tail[0]) >= self._keep:
                self._tail_bytes -= len(self._tail.pop(0))

    def kept(self) -> bytes:
        """Return the output, or its first and last half when it is longer than may be kept."""
        if self.total <= self._keep:
            return bytes(self._head)
        tail = b"".join(self._tail)
        last = self._keep // 2
        first = self._keep - last
        end = (bytes(self._head) + tail)[-last:] if last else b""
        return bytes(self._head[:first]) + end

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of all of the output."""
        digest = self._digest or self._start_digest(fast=False)
        return digest.hexdigest()

    def _add_to_digest(self, data: bytes) -> None:
        if self._digest is not None:
            self._digest.update(data)
        elif self._undigested is not None:
            self._undigested.append(data)
            if self.total > _FAST_DIGEST_FROM_BYTES:
                self._start_digest(fast=True)

    def _start_digest(self, fast: bool) -> Digest:
        digest = self._digest = new_sha256(fast)
        for piece in self._undigested or ():
            digest.update(piece)
        self._undigested = None
        return digest

"""The guest program as it goes into a sandbox: compiled by this interpreter, for this interpreter."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import marshal
from dataclasses import dataclass
from pathlib import Path

import sandboxes.guest

LIBRARY = "/.remit/lib"
START = f"import sys; sys.path.insert(0, {LIBRARY!r}); from sandboxes.guest.main import main; main()"

# Source-less bytecode: the magic number, then flags, time and size, none of which is looked at.
_HEADER = importlib.util.MAGIC_NUMBER + bytes(12)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestImage:
    """Files by their path inside the sandbox, and the digest of the sources they were made of."""

    files: tuple[tuple[str, bytes], ...]
    digest: str


@functools.cache
def guest_image() -> GuestImage:
    """Compile the guest package."""
    folder = Path(sandboxes.guest.__file__).parent
    sources = {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))}
    files = [(f"{LIBRARY}/sandboxes/__init__.pyc", _compiled("__init__.py", b""))]
    digest = hashlib.sha256()
    for name, source in sources.items():
        files.append((f"{LIBRARY}/sandboxes/guest/{name}c", _compiled(name, source)))
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return GuestImage(files=tuple(files), digest=f"sha256:{digest.hexdigest()}")


def _compiled(name: str, source: bytes) -> bytes:
    code = compile(source, f"<guest>/{name}", "exec", dont_inherit=True, optimize=0)
    return _HEADER + marshal.dumps(code)

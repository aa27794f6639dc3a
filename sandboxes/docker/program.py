"""The guest program as it goes into a container: its sources in one argument, for whatever Python is there.

Nothing has to be mounted or installed for it, so it starts the same way on an engine at the other end of a
network. Modules are listed in the order in which they need each other.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sandboxes.guest

OLDEST_PYTHON: Final = (3, 8)
WRONG_PYTHON: Final = 96

_MODULES: Final = (
    "frames",
    "system",
    "watch",
    "output",
    "paths",
    "prepare",
    "uploads",
    "files",
    "contained",
    "contained.report",
    "contained.owner",
    "contained.memory",
    "contained.channel",
    "contained.sweep",
    "contained.orders",
    "contained.child",
    "contained.keeper",
    "contained.cell",
    "contained.command",
    "contained.main",
)
_BOOT: Final = """\
import sys
if sys.version_info < {oldest!r}:
    sys.stderr.write("the image has Python %d.%d, remit needs {oldest_text}" % sys.version_info[:2])
    sys.exit({wrong})
import binascii, zlib
text = zlib.decompress(binascii.a2b_base64({packed!r})).decode()
for part in text.split("\\0"):
    name, _, source = part.partition("\\n")
    module = type(sys)(name)
    module.__path__ = []
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    exec(compile(source, "<guest>/" + name, "exec", dont_inherit=True), module.__dict__)
sys.modules["sandboxes.guest.contained.main"].main(sys.argv[1])
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestProgram:
    """What `python -c` is given, and the digest of the sources in it."""

    code: str
    digest: str


@functools.cache
def guest_program() -> GuestProgram:
    """Pack the guest package."""
    folder = Path(sandboxes.guest.__file__).parent
    parts = ["sandboxes\n", "sandboxes.guest\n"]
    digest = hashlib.sha256()
    for name in _MODULES:
        source = _source(folder, name)
        digest.update(f"{name}\0{len(source)}\0{source}".encode())
        parts.append(f"sandboxes.guest.{name}\n{source}")
    packed = base64.b64encode(zlib.compress("\0".join(parts).encode(), 9)).decode()
    code = _BOOT.format(
        oldest=OLDEST_PYTHON,
        oldest_text=".".join(map(str, OLDEST_PYTHON)),
        wrong=WRONG_PYTHON,
        packed=packed,
    )
    return GuestProgram(code=code, digest=f"sha256:{digest.hexdigest()}")


def _source(folder: Path, name: str) -> str:
    path = folder.joinpath(*name.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")

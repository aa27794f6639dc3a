"""The guest program as it goes into a container: over the channel, for whatever Python is there.

Nothing has to be mounted or installed for it, so it starts the same way on an engine at the other end of a
network. The arguments hold no more than a call for it: an engine writes them down several times, and with the
whole program in them a container took twenty milliseconds longer to make. A Python with the magic number of
this process's own gets the program compiled. Modules are listed in the order in which they need each other.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
from dataclasses import dataclass
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType
from typing import Final

import sandboxes.guest

OLDEST_PYTHON: Final = (3, 8)
WRONG_PYTHON: Final = 96
MAGIC_BYTES: Final = len(MAGIC_NUMBER)

_SOURCES: Final = b"s"
_COMPILED: Final = b"c"
_SIZE_BYTES: Final = 4

_MODULES: Final = (
    "frames",
    "system",
    "watch",
    "output",
    "paths",
    "prepare",
    "uploads",
    "files",
    "report",
    "orders",
    "channel",
    "cell",
    "command",
    "loop",
    "contained",
    "contained.owner",
    "contained.memory",
    "contained.sweep",
    "contained.child",
    "contained.keeper",
    "contained.cell",
    "contained.command",
    "contained.main",
)
_HOLDER_MODULES: Final = ("frames", "holding")
_BOOT: Final = """\
import sys
if sys.version_info < {oldest!r}:
    sys.stderr.write("the image has Python %d.%d, remit needs {oldest_text}" % sys.version_info[:2])
    sys.exit({wrong})
import _socket, marshal, os
from _frozen_importlib_external import MAGIC_NUMBER
place = sys.argv[1]
reading, writing = 0, 1
if place:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    # Only the owner of the directory gets into it; root here has no right to pass by permissions.
    os.seteuid(os.stat(os.path.dirname(place)).st_uid)
    connection.connect(place)
    os.seteuid(0)
    reading = writing = connection.detach()
def read(size):
    data = b""
    while len(data) < size:
        more = os.read(reading, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data
os.write(writing, MAGIC_NUMBER)
kind = read(1)
program = read(int.from_bytes(read({size_bytes}), "big"))
if kind == {compiled!r}:
    parts = marshal.loads(program)
else:
    parts = []
    for part in program.decode().split("\\0"):
        name, _, source = part.partition("\\n")
        parts.append((name, compile(source, "<guest>/" + name, "exec", dont_inherit=True)))
for name, code in parts:
    module = type(sys)(name)
    module.__path__ = []
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    exec(code, module.__dict__)
sys.modules["sandboxes.guest.{last}"].main(reading, writing)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestProgram:
    """The guest package.

    Attributes:
        code: What `python -c` is given: it calls, says which Python it is, and takes the rest.
        sources: What every Python understands.
        compiled: What one of this process's own version does not have to compile.
        digest: That of the sources.
    """

    code: str
    sources: bytes
    compiled: bytes
    digest: str

    def answer_to(self, magic: bytes) -> bytes:
        """Return what a Python that names this magic number is to be sent."""
        kind, program = (_COMPILED, self.compiled) if magic == MAGIC_NUMBER else (_SOURCES, self.sources)
        return kind + len(program).to_bytes(_SIZE_BYTES, "big") + program


@functools.cache
def guest_program() -> GuestProgram:
    """Pack the guest package."""
    return _packed(_MODULES)


@functools.cache
def holder_program() -> GuestProgram:
    """Pack what a holder needs."""
    return _packed(_HOLDER_MODULES)


def _packed(modules: tuple[str, ...]) -> GuestProgram:
    folder = Path(sandboxes.guest.__file__).parent
    sources = {"sandboxes": "", "sandboxes.guest": ""}
    digest = hashlib.sha256()
    for name in modules:
        source = sources[f"sandboxes.guest.{name}"] = _source(folder, name)
        digest.update(f"{name}\0{len(source)}\0{source}".encode())
    code = _BOOT.format(
        oldest=OLDEST_PYTHON,
        oldest_text=".".join(map(str, OLDEST_PYTHON)),
        wrong=WRONG_PYTHON,
        size_bytes=_SIZE_BYTES,
        compiled=_COMPILED,
        last=modules[-1],
    )
    return GuestProgram(
        code=code,
        sources="\0".join(f"{name}\n{source}" for name, source in sources.items()).encode(),
        compiled=marshal.dumps([(name, _compiled(name, source)) for name, source in sources.items()]),
        digest=f"sha256:{digest.hexdigest()}",
    )


def _compiled(name: str, source: str) -> CodeType:
    return compile(source, f"<guest>/{name}", "exec", dont_inherit=True, optimize=2)


def _source(folder: Path, name: str) -> str:
    path = folder.joinpath(*name.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")

"""The guest program as it goes into a sandbox: one file of code of this interpreter, for this interpreter.

Finding each module by its path costs more than running it, and a start pays for all of them. So they travel
together, in the order in which they need each other, and the start puts them in place without looking.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import marshal
from dataclasses import dataclass
from importlib.abc import InspectLoader
from pathlib import Path
from types import CodeType

import sandboxes.guest
from sandboxes.errors import SandboxStartFailed

PLACE = "/.remit/guest"
PACKAGES = ("sandboxes", "sandboxes.guest")
MODULES = (
    "frames",
    "system",
    "paths",
    "prepare",
    "uploads",
    "output",
    "watch",
    "files",
    "report",
    "orders",
    "channel",
    "cell",
    "init",
    "namespace",
    "command",
    "loop",
    "main",
)

# Not one name more than needed: what is defined here stays in the guest's memory.
START = f"""
import marshal, sys
for name in {PACKAGES!r}:
    sys.modules[name] = type(sys)(name)
with open({PLACE!r}, "rb") as image:
    codes = marshal.loads(image.read())
for name, code in codes:
    module = sys.modules["sandboxes.guest." + name] = type(sys)("sandboxes.guest." + name)
    setattr(sys.modules["sandboxes.guest"], name, module)
    exec(code, module.__dict__)
module.main()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestImage:
    """What goes to ``PLACE``, and the digest of the sources that it was made of."""

    content: bytes
    digest: str


@functools.cache
def guest_image() -> GuestImage:
    """Put the guest package together."""
    folder = Path(sandboxes.guest.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.name}\0{len(source)}\0".encode() + source)
    codes = [(name, _code(f"sandboxes.guest.{name}")) for name in MODULES]
    return GuestImage(content=marshal.dumps(codes), digest=f"sha256:{digest.hexdigest()}")


def _code(name: str) -> CodeType:
    """Return a module's code, which the interpreter keeps compiled beside the source."""
    spec = importlib.util.find_spec(name)
    loader = None if spec is None else spec.loader
    code = loader.get_code(name) if isinstance(loader, InspectLoader) else None
    if code is None:
        raise SandboxStartFailed(f"the guest's module {name} has no code", hint="install remit again")
    return code

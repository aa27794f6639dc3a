"""What the sandbox's read-only root file system is made of on this host."""

from __future__ import annotations

import functools
import os
import stat
import sys
from dataclasses import dataclass

from sandboxes.bubblewrap.argv import INTERPRETER_LINKS, UID

_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_HOST_FILES = ("/etc/ld.so.cache",)
_HOST_TREES = ("/etc/alternatives",)
_INTERPRETER_NAMES = ("python", "python3")
_SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
_RESERVED = (
    "/.remit",
    "/proc",
    "/sys",
    "/dev",
    "/etc",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
)

_PASSWD = f"""root:x:0:0:root:/:/bin/sh
remit:x:{UID}:{UID}:remit:/tmp/home:/bin/sh
nobody:x:65534:65534::/:/bin/false
"""
_GROUP = f"root:x:0:\nremit:x:{UID}:\nnogroup:x:65534:\n"
_HOSTS = "127.0.0.1 localhost remit\n::1 localhost\n"
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files\n"

GENERATED_FILES = (
    ("/etc/passwd", _PASSWD.encode()),
    ("/etc/group", _GROUP.encode()),
    ("/etc/hosts", _HOSTS.encode()),
    ("/etc/nsswitch.conf", _NSSWITCH.encode()),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RootFileSystem:
    """Host paths to show and the environment that fits them.

    Attributes:
        interpreter: The running Python, as a path without links.
        prefix: Where that Python's files lie when /usr does not hold them.
        trees: Host directories shown read-only at their own place.
        files: Host files copied to their own place.
        links: Pairs of content and place.
        path: The PATH that finds the interpreter and the system's programs.
    """

    interpreter: str
    prefix: str | None
    trees: tuple[str, ...]
    files: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    path: str


@functools.cache
def root_file_system() -> RootFileSystem:
    """Describe the root file system for the running interpreter."""
    interpreter = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    prefix = os.path.realpath(sys.base_prefix)
    trees = ["/usr", *(path for path in _HOST_TREES if os.path.isdir(path))]
    links = [(interpreter, f"{INTERPRETER_LINKS}/{name}") for name in _INTERPRETER_NAMES]
    for path in _MERGED:
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.isdir(path):
            trees.append(path)
    if os.path.islink("/etc/localtime"):
        links.append((os.readlink("/etc/localtime"), "/etc/localtime"))
    return RootFileSystem(
        interpreter=interpreter,
        prefix=None if is_below(prefix, "/usr") else prefix,
        trees=tuple(trees),
        files=tuple(path for path in _HOST_FILES if _is_readable_file(path)),
        links=tuple(links),
        path=":".join(dict.fromkeys((os.path.dirname(interpreter), *_SYSTEM_PATH, INTERPRETER_LINKS))),
    )


def mount_objection(mount: str) -> str | None:
    """Return why a workspace cannot be mounted at a place, or None."""
    if not mount.startswith("/") or os.path.normpath(mount) != mount or "\0" in mount or mount == "/":
        return f"mount {mount!r} is no normalised absolute path below /"
    system = root_file_system()
    for taken in _RESERVED:
        if is_below(mount, taken):
            return f"mount {mount!r} lies in {taken}, which the sandbox needs itself"
    for shown in (system.prefix, system.interpreter, *system.trees, "/tmp"):  # noqa: S108
        if shown is not None and is_below(shown, mount):
            return f"mount {mount!r} would hide {shown}"
    for tree in (*system.trees, system.prefix):
        if tree is not None and is_below(mount, tree) and not os.path.isdir(mount):
            return f"mount {mount!r} does not exist in the read-only {tree}"
    return None


def is_below(path: str, ancestor: str) -> bool:
    """Whether a path is an ancestor or lies in it, by whole components."""
    return path == ancestor or path.startswith(ancestor.rstrip("/") + "/")


def _is_readable_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.R_OK)
    except OSError:
        return False

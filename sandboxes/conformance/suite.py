"""What the checks are made of: a workspace to work on, expectations, and requests for a shell."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from sandboxes.base import ExecRequest, FileProblem, ResourceLimits, Sandbox, SandboxSpec

T = TypeVar("T")
OpenSandbox = Callable[[SandboxSpec], AbstractAsyncContextManager[Sandbox]]
CheckFunction = Callable[[OpenSandbox, Path], Awaitable[None]]
Needs = Literal["files", "commands"]

SECRET = b"a secret beside the workspace\n"
MIB = 1024 * 1024


class NotConforming(AssertionError):
    """A backend does something else than the contract says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that every backend must do.

    Attributes:
        needs: ``files`` for a check that a sandbox without commands can pass as well.
    """

    name: str
    needs: Needs
    run: CheckFunction


def checks(needs: Needs, *functions: CheckFunction) -> tuple[Check, ...]:
    """Name checks after their functions."""
    return tuple(
        Check(
            name=getattr(function, "__name__", repr(function)).removeprefix("check_"),
            needs=needs,
            run=function,
        )
        for function in functions
    )


def make_workspace(root: Path) -> Path:
    """Make the tree that the checks work on, with a secret beside it."""
    tree = root / "tree"
    for directory in ("sub/deep", "empty", "hidden", "kept"):
        (tree / directory).mkdir(parents=True)
    contents = {
        "a.txt": b"alpha\n",
        "bytes": bytes(range(256)),
        "sub/b.txt": b"beta\n",
        "sub/deep/c.txt": b"gamma\n",
        "hidden/secret": b"hidden\n",
        "kept/file": b"kept\n",
        "run.sh": b"#!/bin/sh\necho ran\n",
    }
    for name, content in contents.items():
        (tree / name).write_bytes(content)
        (tree / name).chmod(0o755 if name == "run.sh" else 0o644)
    links = {
        "link": "sub/b.txt",
        "link-to-directory": "sub",
        "link-out": "/etc/passwd",
        "link-up": "../secret",
    }
    for name, target in links.items():
        (tree / name).symlink_to(target)
    (root / "secret").write_bytes(SECRET)
    return tree


def fingerprint(tree: Path) -> dict[str, tuple[int, str]]:
    """Describe every entry of a tree by mode and content."""
    found: dict[str, tuple[int, str]] = {}
    for directory, directories, files in os.walk(tree):
        for name in (*directories, *files):
            path = Path(directory) / name
            found[str(path.relative_to(tree))] = (path.lstat().st_mode, _content(path))
    return found


def spec(workspace: Path, *, limits: ResourceLimits | None = None, **changes: object) -> SandboxSpec:
    """Make a spec with few changes."""
    return SandboxSpec(
        kind="bubblewrap",
        workspace=workspace,
        limits=limits or ResourceLimits(),
        **changes,  # type: ignore[arg-type]
    )


def shell(script: str, *, timeout_seconds: float = 30.0, max_output_bytes: int = 64 * 1024) -> ExecRequest:
    """Make the request for a shell command."""
    return ExecRequest(
        argv=("/bin/sh", "-c", script), timeout_seconds=timeout_seconds, max_output_bytes=max_output_bytes
    )


def expect(seen: object, wanted: object, what: str) -> None:
    """Raise unless two values are equal."""
    if seen != wanted:
        raise NotConforming(f"{what}: expected {_short(wanted)}, saw {_short(seen)}")


def expect_true(holds: object, what: str) -> None:
    """Raise unless something holds."""
    if not holds:
        raise NotConforming(what)


def done(answer: T | FileProblem) -> T:
    """Give what a file operation answered, which must not be a problem."""
    if isinstance(answer, FileProblem):
        raise NotConforming(f"{answer.path!r}: {answer.kind}: {answer.detail}")
    return answer


def problem(answer: object, kind: str, what: str) -> FileProblem:
    """Give the problem of a file operation, which must be of one kind."""
    if not isinstance(answer, FileProblem):
        raise NotConforming(f"{what}: expected {kind}, but it was done: {_short(answer)}")
    expect(answer.kind, kind, what)
    return answer


def _content(path: Path) -> str:
    if path.is_symlink():
        return os.readlink(path)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}… ({len(text)} characters)"

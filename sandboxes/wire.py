"""Turn requests into frame fields and frame fields into results; any surprise is an integrity error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_args

from sandboxes.base import (
    DirectoryEntry,
    ExecRequest,
    ExecResult,
    FileContent,
    FileProblem,
    FileProblemKind,
    FileRemoved,
    FileWritten,
    LimitName,
    Listing,
)
from sandboxes.errors import SandboxIntegrity
from sandboxes.guest.frames import MAX_BODY_BYTES

Fields = Mapping[str, Any]
Result = TypeVar("Result")

_LIMITS = frozenset(get_args(LimitName))
_PROBLEMS = frozenset(get_args(FileProblemKind))
_ENTRY_KINDS = frozenset({"file", "directory", "symlink", "other"})
_NUMBER, _TEXT, _BYTES, _TRUTH, _LIST = (int,), (str,), (bytes,), (bool,), (list,)
_MAYBE_NUMBER, _MAYBE_TEXT = (int, type(None)), (str, type(None))
_SHELLS = frozenset({"/bin/bash", "/bin/sh"})
_CANNOT_EXECUTE = 126
_LARGEST_EXIT_CODE = 255
_LARGEST_SIGNAL = 64
_DIGEST_CHARACTERS = 64

_SCHEMAS: dict[str, dict[str, tuple[type, ...]]] = {
    "ready": {"strategy": _TEXT, "init": _NUMBER, "shell": _TEXT},
    "pong": {},
    "used": {"bytes": _NUMBER},
    "problem": {"problem": _TEXT, "detail": _TEXT, "target": _MAYBE_TEXT},
    "content": {"data": _BYTES, "size": _NUMBER, "mode": _NUMBER},
    "written": {"created": _TRUTH, "bytes": _NUMBER, "directories": _NUMBER},
    "removed": {},
    "listing": {"entries": _LIST, "truncated": _TRUTH},
    "exec": {
        "exit_code": _MAYBE_NUMBER,
        "signal": _MAYBE_NUMBER,
        "limit": _MAYBE_TEXT,
        "output": _BYTES,
        "output_bytes": _NUMBER,
        "sha256": _TEXT,
        "wall_us": _NUMBER,
        "cpu_us": _NUMBER,
        "peak_bytes": _NUMBER,
        "written_bytes": _NUMBER,
    },
}


def check_reply(reply: Fields, *kinds: str) -> str:
    """Return the kind of a reply that is one of ``kinds`` and has exactly that kind's fields.

    Raises:
        SandboxIntegrity: Another kind, a field too many or too few, a wrong type, a number below zero.
    """
    kind = reply.get("k")
    if not isinstance(kind, str) or kind not in kinds:
        raise SandboxIntegrity(f"guest answered {kind!r} where one of {', '.join(kinds)} was due")
    schema = _SCHEMAS[kind]
    if reply.keys() != schema.keys() | {"k", "n"}:
        raise SandboxIntegrity(f"guest answered {kind} with the fields {', '.join(sorted(reply))}")
    for name, types in schema.items():
        value = reply[name]
        if type(value) not in types or (type(value) is int and value < 0):
            raise SandboxIntegrity(f"guest answered {kind} with {name} of a wrong type or below zero")
    return kind


def shell(reply: Fields) -> str:
    """Return the shell that a guest names when it is ready.

    Raises:
        SandboxIntegrity: It names another than those that are looked for.
    """
    if reply["shell"] not in _SHELLS:
        raise SandboxIntegrity(f"guest named the shell {reply['shell']!r}")
    return cast("str", reply["shell"])


def is_sendable(text: str) -> bool:
    """Whether a text stands for bytes: it holds no surrogate but those that escape a byte."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def unsendable_result(request: ExecRequest) -> ExecResult | None:
    """Return how a command ends that no kernel could be asked to run, or None."""
    words = (*request.argv, request.cwd, *request.environment, *request.environment.values())
    if request.argv and all(map(is_sendable, words)):
        return None
    output = b"the command line is empty or is no text\n"[: request.max_output_bytes]
    return ExecResult(
        exit_code=_CANNOT_EXECUTE,
        signal=None,
        limit=None,
        output=output,
        output_bytes=len(output),
        output_sha256=hashlib.sha256(output).hexdigest(),
        truncated=False,
        wall_seconds=0.0,
        cpu_seconds=0.0,
        peak_memory_bytes=0,
        written_bytes=0,
    )


def exec_fields(request: ExecRequest, *, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of an exec request; ``environment`` is the whole of it."""
    return {
        "argv": list(request.argv),
        "directory": request.cwd,
        "stdin": request.stdin,
        "environment": dict(environment),
        "timeout_us": max(1, round(request.timeout_seconds * 1e6)),
        "max_output_bytes": request.max_output_bytes,
    }


def exec_result(reply: Fields, *, request: ExecRequest) -> ExecResult:
    """Return how a command ended."""
    check_reply(reply, "exec")
    _check_ending(reply["exit_code"], reply["signal"], reply["limit"])
    output, total, digest = reply["output"], reply["output_bytes"], reply["sha256"]
    if len(output) != min(total, request.max_output_bytes) or len(digest) != _DIGEST_CHARACTERS:
        raise SandboxIntegrity(f"guest answered {len(output)} bytes of {total} that a command wrote")
    return ExecResult(
        exit_code=reply["exit_code"],
        signal=reply["signal"],
        limit=cast("LimitName | None", reply["limit"]),
        output=output,
        output_bytes=total,
        output_sha256=digest,
        truncated=len(output) < total,
        wall_seconds=reply["wall_us"] / 1e6,
        cpu_seconds=reply["cpu_us"] / 1e6,
        peak_memory_bytes=reply["peak_bytes"],
        written_bytes=reply["written_bytes"],
    )


def content(reply: Fields, *, path: str, offset: int, max_bytes: int) -> FileContent | FileProblem:
    """Return what a read answered."""
    if check_reply(reply, "content", "problem") == "problem":
        return problem(reply, path=path)
    data, size = reply["data"], reply["size"]
    if len(data) > min(max_bytes, MAX_BODY_BYTES) or (data and offset + len(data) > size):
        raise SandboxIntegrity(f"guest answered a read of {max_bytes} bytes with {len(data)}")
    return FileContent(data=data, size=size, mode=reply["mode"], truncated=offset + len(data) < size)


def written(reply: Fields, *, path: str, size: int) -> FileWritten | FileProblem:
    """Return what a write answered."""
    if check_reply(reply, "written", "problem") == "problem":
        return problem(reply, path=path)
    if reply["bytes"] != size:
        raise SandboxIntegrity(f"guest answered a write of {size} bytes with {reply['bytes']}")
    return FileWritten(created=reply["created"], bytes_written=size, directories_created=reply["directories"])


def removed(reply: Fields, *, path: str) -> FileRemoved | FileProblem:
    """Return what a removal answered."""
    if check_reply(reply, "removed", "problem") == "problem":
        return problem(reply, path=path)
    return FileRemoved(path=path)


def listing(reply: Fields, *, path: str, max_entries: int) -> Listing | FileProblem:
    """Return what a listing answered."""
    if check_reply(reply, "listing", "problem") == "problem":
        return problem(reply, path=path)
    if len(reply["entries"]) > max_entries:
        raise SandboxIntegrity(f"guest listed {len(reply['entries'])} entries of at most {max_entries}")
    entries = tuple(_entry(entry) for entry in reply["entries"])
    return Listing(entries=entries, truncated=reply["truncated"])


def problem(reply: Fields, *, path: str) -> FileProblem:
    """Return the problem that a file operation ended in."""
    kind = reply["problem"]
    if kind not in _PROBLEMS:
        raise SandboxIntegrity(f"guest answered the unknown problem {kind!r}")
    return FileProblem(
        kind=cast("FileProblemKind", kind), path=path, detail=reply["detail"], target=reply["target"]
    )


def _check_ending(exit_code: int | None, signal: int | None, limit: str | None) -> None:
    if [exit_code, signal, limit].count(None) != 2:
        raise SandboxIntegrity(f"guest says a command ended with {exit_code}, {signal} and {limit} at once")
    if limit is not None and limit not in _LIMITS:
        raise SandboxIntegrity(f"guest answered the unknown limit {limit!r}")
    if (exit_code or 0) > _LARGEST_EXIT_CODE or (signal or 0) > _LARGEST_SIGNAL:
        raise SandboxIntegrity(f"guest answered the exit status {exit_code}, signal {signal}")


def _entry(raw: object) -> DirectoryEntry:
    match raw:
        case [str(path), str(kind), int(size)] if kind in _ENTRY_KINDS and size >= 0:
            return DirectoryEntry(path=path, kind=cast("Any", kind), size=size)
    raise SandboxIntegrity("guest listed an entry that is none")

"""The contract between a broker and a sandbox: what is asked for, what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

LimitName = Literal["wall", "memory", "pids", "output", "disk", "inodes", "size", "cpu", "fds"]
FileProblemKind = Literal[
    "not_found",
    "is_directory",
    "not_directory",
    "not_regular",
    "outside",
    "symlink",
    "permission",
    "exists",
    "too_large",
    "no_space",
    "name_too_long",
    "changed",
    "invalid_path",
]
ControlState = Literal["observed", "configured", "unknown", "missing"]
WorkspaceStrategy = Literal["overlay", "copy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceLimits:
    """Ceilings for one sandbox. Every one holds by default; ``None`` does not exist here."""

    memory_bytes: int = 512 * 1024 * 1024
    pids: int = 128
    cpus: int = 1
    cpu_seconds: int = 3600
    open_files: int = 1024
    file_bytes: int = 256 * 1024 * 1024
    disk_bytes: int = 256 * 1024 * 1024
    inodes: int = 65536
    tmp_bytes: int = 64 * 1024 * 1024
    output_limit_bytes: int = 128 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxSpec:
    """Everything a backend needs to know to build one sandbox.

    Attributes:
        workspace: The user's tree on the host; never written.
        mount: Absolute path of the workspace inside the sandbox.
        hidden: Paths relative to the workspace that exist now and must read as empty to everything inside.
        read_only: Paths relative to the workspace that exist now and must not be written by anything inside.
        environment: The whole environment of every command.
        lifetime: What the remit asks for. Whoever opens the sandboxes sees to it; one sandbox is the same.
    """

    kind: Literal["bubblewrap", "docker"]
    workspace: Path
    mount: str = "/workspace"
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    hidden: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    lifetime: Literal["task", "call"] = "task"
    network: Literal["none"] = "none"
    runtime: str | None = None
    image: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """One isolation control: what was configured and what was seen to hold in the live sandbox."""

    name: str
    configured: str
    observed: str | None
    state: ControlState
    required: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxIdentity:
    """What the sandbox was made of, for the receipt.

    Attributes:
        shell: Absolute path inside of the shell that commands are written for: bash where there is one.
        holds_snapshot: The user's tree was copied when the sandbox was opened; what is written to it later
            does not show inside.
    """

    id: str
    backend: str
    backend_version: str
    guest_digest: str
    strategy: WorkspaceStrategy
    details: Mapping[str, str] = field(default_factory=dict)
    shell: str = "/bin/sh"
    holds_snapshot: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecRequest:
    """One command, with the limits that hold for it alone.

    Attributes:
        argv: Argument vector; ``argv[0]`` is looked up in the PATH of ``environment`` unless it has a slash.
        cwd: Working directory relative to the workspace; ``"."`` is its root.
        max_output_bytes: How much of stdout and stderr, merged in order of arrival, is kept (head and tail).
    """

    argv: tuple[str, ...]
    cwd: str = "."
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 180.0
    max_output_bytes: int = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecResult:
    """How one command ended.

    Exactly one of ``exit_code``, ``signal`` and ``limit`` is set and says it; the signal that enforced
    a limit is not told. ``output`` holds head and tail when ``output_bytes`` is more than was kept.
    """

    exit_code: int | None
    signal: int | None
    limit: LimitName | None
    output: bytes
    output_bytes: int
    output_sha256: str
    truncated: bool
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    written_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FileProblem:
    """A file operation that could not be done, and why. Nothing was changed.

    ``target`` is set for ``symlink``: where the link leads, relative to the workspace.
    """

    kind: FileProblemKind
    path: str
    detail: str
    target: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileContent:
    """Up to ``max_bytes`` of a regular file from ``offset``; ``size`` is the whole file's."""

    data: bytes
    size: int
    mode: int
    truncated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FileWritten:
    """A file that now holds exactly what was given."""

    created: bool
    bytes_written: int
    directories_created: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRemoved:
    """A file, link or empty directory that is no more."""

    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectoryEntry:
    """One name below a listed directory; ``path`` is relative to the workspace."""

    path: str
    kind: Literal["file", "directory", "symlink", "other"]
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Entries in order of path; ``truncated`` when there were more than asked for."""

    entries: tuple[DirectoryEntry, ...]
    truncated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """Where a run's changes lie: an open directory that outlives the sandbox, over the user's tree.

    With strategy ``overlay`` ``upper_fd`` is the overlay's upper directory, with ``copy`` the whole changed
    copy. It stays open as long as the sandbox object lives, also after the sandbox was closed.
    """

    upper_fd: int
    lower: Path
    strategy: WorkspaceStrategy


class Sandbox(Protocol):
    """A disposable container around one workspace.

    An async context manager; leaving it kills everything inside. All paths are relative to the workspace,
    ``/``-separated and already normalised; bytes that are not UTF-8 travel as surrogate escapes. Methods may
    be called concurrently. Each raises ``SandboxError`` only when the machinery failed.
    """

    @property
    def identity(self) -> SandboxIdentity:
        """What this sandbox is made of, for the receipt."""
        ...

    @property
    def controls(self) -> tuple[Control, ...]:
        """What isolates this sandbox, as configured and as seen from outside while it lives."""
        ...

    @property
    def layer(self) -> Layer:
        """The changes so far; safe to read as a whole only after the sandbox was closed."""
        ...

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run one command to its end; what it leaves behind is killed.

        Failure, signal and limit are results.
        """
        ...

    async def exec_last(self, request: ExecRequest) -> ExecResult:
        """Run one command and end the sandbox with its exit status, which the host observes itself.

        Raises:
            SandboxIntegrity: The guest claims another status than the host saw.
        """
        ...

    async def read_file(self, path: str, *, offset: int = 0, max_bytes: int) -> FileContent | FileProblem:
        """Read a regular file, following no link."""
        ...

    async def write_file(
        self,
        path: str,
        data: bytes,
        *,
        mode: int | None = None,
        create_parents: bool = True,
        must_not_exist: bool = False,
        expected_sha256: str | None = None,
        modified_ns: int | None = None,
    ) -> FileWritten | FileProblem:
        """Put ``data`` in place by a temporary file and a rename.

        An existing file keeps its mode unless one is given. ``expected_sha256`` refuses with ``changed`` when
        the file's present content is another. ``modified_ns`` is the time of modification that it gets, in
        nanoseconds since 1970; without it, now.
        """
        ...

    async def remove(self, path: str) -> FileRemoved | FileProblem:
        """Remove a file, a link or an empty directory."""
        ...

    async def make_directory(self, path: str, *, mode: int = 0o755) -> FileWritten | FileProblem:
        """Make one directory (parents must exist); an existing one only gets ``mode``."""
        ...

    async def make_symlink(self, path: str, *, target: str) -> FileWritten | FileProblem:
        """Make a symbolic link that holds ``target`` unresolved."""
        ...

    async def list_directory(
        self, path: str, *, recursive: bool = False, max_entries: int = 1000
    ) -> Listing | FileProblem:
        """List a directory, following no link."""
        ...

    async def used_bytes(self) -> int:
        """Bytes that the workspace's changes occupy now."""
        ...

    async def aclose(self) -> None:
        """Kill everything inside and wait until it is gone. Safe to call twice."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendReport:
    """Whether one backend can be used on this host; ``reason`` and ``hint`` when it cannot."""

    backend: str
    usable: bool
    version: str | None
    reason: str | None
    hint: str | None
    details: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """Something of a sandbox whose broker is gone: a container, a volume or a directory."""

    kind: str
    name: str

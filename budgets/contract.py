"""The remit as a value: every section of the contract, its defaults and its rules.

Whatever is left out gets the narrower meaning: no path, no tool, no network, no change to the user's tree.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from budgets.budget import MAX_COUNT, Budget
from budgets.envelope import EXCLUDED_CLASSES, excluded_class
from budgets.glob import glob_problem
from budgets.protect import DEFAULT_PROTECT
from budgets.quantity import Duration, PositiveSize
from budgets.route import Route
from budgets.scope import Scope
from budgets.toolname import ToolNames, listed

MIN_MEMORY_BYTES: Final = 16 * 1024 * 1024

# The sandbox builds these places itself; a workspace there would hide them or be hidden.
_TAKEN_TREES: Final = (
    *(
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/etc",
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/boot",
    ),
    *("/tmp", "/var/tmp", "/var/run"),  # noqa: S108
)
_TAKEN: Final = ("/", "/home", "/opt", "/var", "/mnt", "/media", "/srv")

_CONFIG: Final = ConfigDict(
    frozen=True, extra="forbid", strict=True, validate_by_name=True, validate_by_alias=True
)


def _refuse(message: str, *, hint: str | None = None, at: tuple[str, ...] = ()) -> PydanticCustomError:
    """Make the error of a rule; ``at`` leads from the value it was found on to the key that is to blame."""
    return PydanticCustomError("rule", "{message}", {"message": message, "hint": hint, "at": at})


def _task_class(name: str) -> str:
    if (excluded := excluded_class(name)) is not None:
        raise _refuse(
            f"tasks of class {excluded} reach beyond a workspace and are excluded",
            hint=f"excluded classes are {', '.join(EXCLUDED_CLASSES)}",
        )
    return name


def _no_network(value: object) -> object:
    if isinstance(value, list | tuple):
        raise _refuse("a list of hosts cannot be enforced yet", hint="write `network: none`")
    return value


def _mount(path: str) -> str:
    segments = path.split("/")[1:]
    if not path.startswith("/") or (path != "/" and {"", ".", ".."} & set(segments)):
        raise _refuse("the mount point is an absolute path without '.', '..', '//' and a '/' at its end")
    if not path.isprintable():
        raise _refuse("the mount point holds a character that cannot be printed")
    taken = path in _TAKEN or any(path == tree or path.startswith(f"{tree}/") for tree in _TAKEN_TREES)
    if taken:
        raise _refuse(
            f"the sandbox needs {path} for itself", hint="use a place of its own, such as /workspace"
        )
    return path


def _glob(pattern: str) -> str:
    if (problem := glob_problem(pattern)) is not None:
        raise _refuse(problem.message, hint=problem.hint)
    return pattern


def _protected(value: object) -> object:
    if value == "default":
        return DEFAULT_PROTECT
    value = listed(value)
    if not isinstance(value, tuple):
        return value
    parts = [DEFAULT_PROTECT if item == "default" else (item,) for item in value]
    return (
        tuple(dict.fromkeys(item for part in parts for item in part)) if all(map(_hashable, value)) else value
    )


def _hashable(value: object) -> bool:
    return isinstance(value, str)


def _tripwire(path: str) -> str:
    if not path.startswith(("/", "~/")) or ".." in path.split("/") or not path.isprintable():
        raise _refuse("a tripwire is the path of a file, absolute or from ~/, without '..'")
    return path


def _argument(text: str) -> str:
    if "\0" in text:
        raise _refuse("an argument cannot hold a NUL")
    return text


def _argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv or not argv[0]:
        raise _refuse("a check runs a program", hint="write run: [python3, run_tests.py]")
    return argv


def _split_argv(value: object) -> object:
    if isinstance(value, str):
        words = ", ".join(value.split())
        raise _refuse("a check is an argument vector, there is no shell", hint=f"write run: [{words[:100]}]")
    return listed(value)


Glob = Annotated[str, AfterValidator(_glob)]
Globs = Annotated[tuple[Glob, ...], BeforeValidator(listed)]
_PROTECT_SCHEMA: Final = {
    "anyOf": [{"const": "default"}, {"type": "array", "items": {"type": "string"}}],
    "default": "default",
}


class Task(BaseModel):
    """What the run is for."""

    model_config = _CONFIG

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        description="Name of the task: letters, digits, '.', '_' and '-', at most 64."
    )
    class_: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"), AfterValidator(_task_class)
    ] = Field(
        default="general",
        validation_alias="class",
        serialization_alias="class",
        description=f"Kind of task, a name of your own; refused are {', '.join(EXCLUDED_CLASSES)}.",
    )


class SandboxRules(BaseModel):
    """The disposable container and its ceilings. Each holds by default and none can be switched off."""

    model_config = _CONFIG

    kind: Literal["bubblewrap", "docker"] = Field(
        default="bubblewrap", description="Backend that isolates the run."
    )
    runtime: Literal["runc", "runsc"] | None = Field(
        default=None, description="Container runtime; docker only."
    )
    image: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,255}$")] | None = Field(
        default=None, description="Image to run; docker only."
    )
    lifetime: Literal["task", "call"] = Field(
        default="task", description="One sandbox for the whole run, or a fresh one for each call."
    )
    network: Annotated[Literal["none"], BeforeValidator(_no_network)] = Field(
        default="none", description="What the sandbox can reach: nothing."
    )
    memory: Annotated[PositiveSize, Field(ge=MIN_MEMORY_BYTES)] = Field(
        default=512 * 1024 * 1024, description="Memory of everything inside, together."
    )
    cpus: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="Processors, as a whole number."
    )
    cpu_time: Duration = Field(default=3600.0, description="Processor time of one command.")
    pids: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=128, description="Processes and threads at a time."
    )
    disk: PositiveSize = Field(
        default=256 * 1024 * 1024, description="Room for the run's changes to the workspace."
    )
    inodes: Annotated[int, Field(ge=1, le=MAX_COUNT)] = Field(
        default=65536, description="Files and directories that the run's changes may hold."
    )
    tmp: PositiveSize = Field(
        default=64 * 1024 * 1024, description="Room in /tmp, which is empty at the start."
    )
    files: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        default=1024, description="Open files of a process."
    )
    file_size: PositiveSize = Field(default=256 * 1024 * 1024, description="Size of a single file.")
    command_timeout: Duration = Field(default=180.0, description="Time that one command may take.")
    command_output: PositiveSize = Field(
        default=64 * 1024, description="Output of one command that is kept, its beginning and its end."
    )
    output_limit: PositiveSize = Field(
        default=128 * 1024 * 1024, description="Output of one command at which it is killed."
    )

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.kind == "bubblewrap" and (self.runtime is not None or self.image is not None):
            given = "runtime" if self.runtime is not None else "image"
            raise _refuse(
                f"{given} has no meaning for kind bubblewrap", hint=f"leave {given} out", at=(given,)
            )
        return self


class ScopeRules(BaseModel):
    """Which paths may be read and written. An empty list allows nothing; ``deny`` wins over all others."""

    model_config = _CONFIG

    workspace: Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_argument)] = (
        Field(
            description="Your directory, relative to the remit's own; it is not written while the run lasts."
        )
    )
    mount: Annotated[str, StringConstraints(max_length=1024), AfterValidator(_mount)] = Field(
        default="/workspace", description="Name of the workspace inside the sandbox."
    )
    read: Globs = Field(default=(), description="What file tools may read. Without it: nothing.")
    write: Globs = Field(
        default=(), description="What may be made, changed and removed. Without it: nothing."
    )
    deny: Globs = Field(default=(), description="What is neither read nor written by any tool; deny wins.")
    protect: Annotated[tuple[Glob, ...], BeforeValidator(_protected), WithJsonSchema(_PROTECT_SCHEMA)] = (
        Field(
            default=DEFAULT_PROTECT,
            description="Not written unless `write` names it exactly; `default` is the built-in list.",
        )
    )
    growth: Literal["record", "refuse"] = Field(
        default="record", description="What becomes of a change that `write` does not cover."
    )

    @cached_property
    def compiled(self) -> Scope:
        """The globs, compiled once for the life of this remit."""
        return Scope.of(self)


class Check(BaseModel):
    """A command that runs in a fresh sandbox over the result and must end with 0."""

    model_config = _CONFIG

    run: Annotated[
        tuple[Annotated[str, AfterValidator(_argument)], ...],
        BeforeValidator(_split_argv),
        AfterValidator(_argv),
    ] = Field(description="Program and arguments; no shell is involved.", json_schema_extra={"minItems": 1})
    name: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,80}$")] | None = Field(
        default=None, description="What to call it; without it, the command itself."
    )
    timeout: Duration = Field(default=120.0, description="Time after which the check counts as not run.")

    @property
    def label(self) -> str:
        """What the check is called in a verdict."""
        return self.name or " ".join(self.run)[:80]


class Remit(BaseModel):
    """The contract of one task: what may be touched, how much may be used, and how the result is judged."""

    model_config = _CONFIG

    version: Literal[1] = Field(description="Version of this format.")
    task: Task = Field(description="What the run is for.")
    route: Route | None = Field(
        default=None, description="Who must have answered; leave it out when no model is in play."
    )
    sandbox: SandboxRules = Field(default_factory=SandboxRules, description="The container and its ceilings.")
    scope: ScopeRules = Field(description="Paths to read and to write.")
    budget: Budget = Field(default_factory=Budget, description="How much the run may use.")
    approve: ToolNames = Field(default=(), description="Tools whose every call waits for a person's yes.")
    tripwires: Annotated[tuple[Annotated[str, AfterValidator(_tripwire)], ...], BeforeValidator(listed)] = (
        Field(default=(), description="Files on the host that nothing may change while the run lasts.")
    )
    checks: Annotated[tuple[Check, ...], BeforeValidator(listed)] = Field(
        default=(), description="Commands that judge the result."
    )
    commit: Literal["on_pass", "always", "never"] = Field(
        default="never", description="When the changes are applied to your directory without asking."
    )

    @model_validator(mode="after")
    def _can_refuse_growth(self) -> Self:
        terminal = self.budget.tools.get("terminal", 0) > 0
        if self.scope.growth == "refuse" and terminal and self.sandbox.lifetime == "task":
            raise _refuse(
                "growth cannot be refused for terminal in a sandbox that lives as long as the task",
                hint="write `growth: record`, or `lifetime: call` in sandbox, or give terminal no calls",
                at=("scope", "growth"),
            )
        return self

    @model_validator(mode="after")
    def _names_checks_once(self) -> Self:
        names = [check.name for check in self.checks if check.name is not None]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise _refuse(f"two checks have the name {twice[0]!a}", at=("checks",))
        return self

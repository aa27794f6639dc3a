"""The configuration of one bubblewrap call, as data and as its argument vector: the security policy."""

from __future__ import annotations

from dataclasses import dataclass

from sandboxes.bubblewrap.image import START

UID = 1000
HOSTNAME = "remit"
AREA = "/.remit"
INTERPRETER_LINKS = "/etc/remit/bin"

# What the guest needs while it mounts; it gives up all but SYS_PTRACE before the first command.
GUEST_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_FOWNER")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One sandbox as bubblewrap is to build it.

    Attributes:
        bwrap: The program, as the starting uid can reach it.
        interpreter: Path of the guest's Python, the same inside and outside.
        lower: The user's tree, as the starting uid can read it.
        mount: Where the workspace will be.
        binds: Pairs of source and destination, read-only.
        links: Pairs of content and place of symbolic links.
        copies: Pairs of an open descriptor and the place its content goes to.
        channel: The descriptor that the guest speaks over.
    """

    bwrap: str
    interpreter: str
    lower: str
    mount: str
    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    copies: tuple[tuple[int, str], ...]
    channel: int


def bwrap_argv(plan: Plan) -> tuple[str, ...]:
    """Return the argument vector for a plan."""
    return (
        plan.bwrap,
        *_isolation(),
        *_file_system(plan),
        "--",
        plan.interpreter,
        "-I",
        "-S",
        "-c",
        START,
        str(plan.channel),
    )


def _isolation() -> tuple[str, ...]:
    namespaces = ("user", "pid", "net", "ipc", "uts", "cgroup-try")
    capabilities = (word for name in GUEST_CAPABILITIES for word in ("--cap-add", name))
    return (
        *(f"--unshare-{name}" for name in namespaces),
        *("--uid", str(UID), "--gid", str(UID), "--hostname", HOSTNAME),
        *("--as-pid-1", "--die-with-parent", "--new-session", "--clearenv"),
        *("--cap-drop", "ALL", *capabilities),
    )


def _file_system(plan: Plan) -> tuple[str, ...]:
    return (
        *(word for source, place in plan.binds for word in ("--ro-bind", source, place)),
        *(word for content, place in plan.links for word in ("--symlink", content, place)),
        *("--proc", "/proc", "--dev", "/dev", "--dir", "/tmp"),  # noqa: S108
        *("--dir", AREA, "--dir", f"{AREA}/store", "--dir", f"{AREA}/empty"),
        *("--ro-bind", plan.lower, f"{AREA}/lower"),
        *(word for number, place in plan.copies for word in ("--file", str(number), place)),
        *("--dir", plan.mount, "--chdir", "/"),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    )

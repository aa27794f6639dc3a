"""A sandbox as the engine is to build it, as data: the security policy of a container.

Every function here is pure. What is asked for is checked again on the live container (`controls`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sandboxes.base import ResourceLimits
from sandboxes.docker.profile import seccomp_option

CAPABILITIES: Final = ("KILL", "SETGID", "SETUID")
CHANNEL: Final = "/.remit"
SOCKET_NAME: Final = "channel"
HOSTNAME: Final = "remit"
RESERVED_PIDS: Final = 32

_GUEST_BYTES: Final = 64 * 1024 * 1024
_SHM_BYTES: Final = 16 * 1024 * 1024
_TMP_INODES: Final = 16384
_GUEST_OPEN_FILES: Final = 4096
# gVisor's kernel is a process of the host: its threads count as well, and it needs memory of its own.
_SENTRY_PIDS: Final = 2048
_SENTRY_BYTES: Final = 128 * 1024 * 1024
_HOLDER_BYTES: Final = 192 * 1024 * 1024
_HOLDER_PIDS: Final = 8
_HOLDER_SHM_BYTES: Final = 64 * 1024
# The engine's own list, which a list of ours replaces.
_READ_ONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bind:
    """A path of the host at a place in the container."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlay:
    """The workspace as a volume: directories of the host as the engine finds them."""

    volume: str
    lower: str
    upper: str
    work: str
    user_marks: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """The workspace as a volume in the engine's memory, into which a tree is sent.

    Attributes:
        size_bytes: What the tree takes, without what may be added.
        read_only: Paths in the container that the engine makes read-only.
        owned: Whether the commands' uid can be named to the engine as the volume's owner.
    """

    volume: str
    size_bytes: int
    entries: int
    mode: int
    read_only: tuple[str, ...]
    owned: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One container.

    Attributes:
        overlay: Where the workspace comes from; None for a volume that is filled by the engine.
        copied: That volume; None for an overlay. With neither the workspace is empty and in memory.
        binds: What else of the host is shown, in the order of mounting.
        by_stream: The guest is spoken to over the container's own stdin and stdout.
    """

    name: str
    image: str
    runtime: str
    code: str
    mount: str
    uid: int
    gid: int
    limits: ResourceLimits
    overlay: Overlay | None
    binds: tuple[Bind, ...]
    labels: Mapping[str, str]
    by_stream: bool
    copied: Copied | None = None


def create_body(plan: Plan) -> dict[str, Any]:
    """Return the body of the request that creates the container."""
    return {
        "Image": plan.image,
        "User": "0:0",
        "Entrypoint": ["python3", "-I", "-S", "-c", plan.code],
        "Cmd": [_socket_place(plan)],
        "Env": [],
        "WorkingDir": "/",
        "Hostname": HOSTNAME,
        "Labels": dict(plan.labels),
        "Volumes": {},
        "ExposedPorts": {},
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGKILL",
        "Tty": False,
        "OpenStdin": plan.by_stream,
        "StdinOnce": plan.by_stream,
        "AttachStdin": plan.by_stream,
        "AttachStdout": plan.by_stream,
        "AttachStderr": plan.by_stream,
        # Without the network hook a container starts in half the time, and has no network all the same.
        # gVisor wants the namespace that the hook makes.
        "NetworkDisabled": plan.runtime != "runsc",
        "HostConfig": _host_config(plan),
    }


def holder_body(plan: Plan, code: str) -> dict[str, Any]:
    """Return the body for the container that holds the workspace's volume and runs no command.

    Its root may make what the engine would not unpack, and read whatever modes a command has given a file.
    """
    body = create_body(plan)
    host = {
        **body["HostConfig"],
        "CapAdd": ["CHOWN", "DAC_OVERRIDE"],
        "Memory": _HOLDER_BYTES,
        "MemorySwap": _HOLDER_BYTES,
        "PidsLimit": _SENTRY_PIDS if plan.runtime == "runsc" else _HOLDER_PIDS,
        "ShmSize": _HOLDER_SHM_BYTES,
        "Tmpfs": {},
        "ReadonlyPaths": list(_READ_ONLY_PATHS),
    }
    return {**body, "Entrypoint": ["python3", "-I", "-S", "-c", code], "HostConfig": host}


def _socket_place(plan: Plan) -> str:
    return "" if plan.by_stream else f"{CHANNEL}/{SOCKET_NAME}"


def _host_config(plan: Plan) -> dict[str, Any]:
    return {
        "Runtime": plan.runtime,
        "NetworkMode": "none",
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "CgroupnsMode": "private",
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "SecurityOpt": ["no-new-privileges:true", seccomp_option()],
        "Devices": [],
        "DeviceRequests": [],
        "PublishAllPorts": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "LogConfig": {"Type": "none", "Config": {}},
        "Init": False,
        "OomKillDisable": None,
        **_resources(plan),
        **_covers(plan),
        "Tmpfs": _tmpfs(plan),
        "Mounts": [*_workspace_mount(plan), *(_bind(bind) for bind in plan.binds)],
    }


def _covers(plan: Plan) -> dict[str, Any]:
    """Return what the engine covers inside by itself; for an engine on this host binds do it."""
    if plan.copied is None:
        return {}
    return {"ReadonlyPaths": [*_READ_ONLY_PATHS, *plan.copied.read_only]}


def _resources(plan: Plan) -> dict[str, Any]:
    limits, sentry = plan.limits, plan.runtime == "runsc"
    files = max(limits.open_files, _GUEST_OPEN_FILES)
    tree = plan.copied.size_bytes if plan.copied else 0
    memory = memory_ceiling(limits) + tree + (_SENTRY_BYTES if sentry else 0)
    pids = limits.pids + RESERVED_PIDS
    return {
        "Memory": memory,
        "MemorySwap": memory,
        "MemorySwappiness": None,
        "NanoCpus": limits.cpus * 1_000_000_000,
        "PidsLimit": max(pids, _SENTRY_PIDS) if sentry else pids,
        "ShmSize": min(limits.tmp_bytes, _SHM_BYTES),
        "Ulimits": [
            {"Name": "nofile", "Soft": files, "Hard": files},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
    }


def memory_ceiling(limits: ResourceLimits) -> int:
    """Return what the control group is to hold: processes, memory file systems and the guest."""
    return limits.memory_bytes + limits.disk_bytes + limits.tmp_bytes + _SHM_BYTES + _GUEST_BYTES


def _tmpfs(plan: Plan) -> dict[str, str]:
    limits = plan.limits
    inodes = min(limits.inodes, _TMP_INODES)
    places = {"/tmp": f"rw,exec,nosuid,nodev,size={limits.tmp_bytes},nr_inodes={inodes},mode=1777"}  # noqa: S108
    if plan.overlay is None and plan.copied is None:
        places[plan.mount] = (
            f"rw,exec,nosuid,nodev,size={limits.disk_bytes},nr_inodes={limits.inodes},"
            f"uid={plan.uid},gid={plan.gid},mode=755"
        )
    return places


def _workspace_mount(plan: Plan) -> list[dict[str, Any]]:
    overlay = plan.overlay
    if overlay is None:
        return [_volume(plan, plan.copied.volume, _tmpfs_driver(plan, plan.copied))] if plan.copied else []
    # Beside marks of the user's space the kernel refuses "off" and wants the same said as "nofollow".
    marks = "redirect_dir=nofollow,userxattr" if overlay.user_marks else "redirect_dir=off"
    layers = f"lowerdir={overlay.lower},upperdir={overlay.upper},workdir={overlay.work}"
    # Marks that a layer's reader does not know are never asked for, whatever the kernel's defaults are.
    options = f"{layers},{marks},metacopy=off,index=off,nosuid,nodev"
    return [_volume(plan, overlay.volume, {"type": "overlay", "device": "overlay", "o": options})]


def _tmpfs_driver(plan: Plan, copied: Copied) -> dict[str, str]:
    limits = plan.limits
    size, entries = copied.size_bytes + limits.disk_bytes, copied.entries + limits.inodes
    # An engine with users of its own mounts as root of this host: nobody in the container would own it.
    owner = f"uid={plan.uid},gid={plan.gid},mode={copied.mode:o}" if copied.owned else "mode=777"
    options = f"size={size},nr_inodes={entries},{owner},nosuid,nodev"
    return {"type": "tmpfs", "device": "tmpfs", "o": options}


def _volume(plan: Plan, name: str, options: dict[str, str]) -> dict[str, Any]:
    return {
        "Type": "volume",
        "Source": name,
        "Target": plan.mount,
        "VolumeOptions": {
            "NoCopy": True,
            "Labels": dict(plan.labels),
            "DriverConfig": {"Name": "local", "Options": options},
        },
    }


def _bind(bind: Bind) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": bind.source,
        "Target": bind.target,
        "ReadOnly": bind.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }

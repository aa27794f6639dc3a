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
class Plan:
    """One container.

    Attributes:
        overlay: Where the workspace comes from; None for an empty one in memory.
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
        "Tmpfs": _tmpfs(plan),
        "Mounts": [*_workspace_mount(plan), *(_bind(bind) for bind in plan.binds)],
    }


def _resources(plan: Plan) -> dict[str, Any]:
    limits, sentry = plan.limits, plan.runtime == "runsc"
    files = max(limits.open_files, _GUEST_OPEN_FILES)
    memory = memory_ceiling(limits) + (_SENTRY_BYTES if sentry else 0)
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
    if plan.overlay is None:
        places[plan.mount] = (
            f"rw,exec,nosuid,nodev,size={limits.disk_bytes},nr_inodes={limits.inodes},"
            f"uid={plan.uid},gid={plan.gid},mode=755"
        )
    return places


def _workspace_mount(plan: Plan) -> list[dict[str, Any]]:
    overlay = plan.overlay
    if overlay is None:
        return []
    # Beside marks of the user's space the kernel refuses "off" and wants the same said as "nofollow".
    marks = "redirect_dir=nofollow,userxattr" if overlay.user_marks else "redirect_dir=off"
    layers = f"lowerdir={overlay.lower},upperdir={overlay.upper},workdir={overlay.work}"
    # Marks that a layer's reader does not know are never asked for, whatever the kernel's defaults are.
    options = f"{layers},{marks},metacopy=off,index=off,nosuid,nodev"
    return [
        {
            "Type": "volume",
            "Source": overlay.volume,
            "Target": plan.mount,
            "VolumeOptions": {
                "NoCopy": True,
                "Labels": dict(plan.labels),
                "DriverConfig": {
                    "Name": "local",
                    "Options": {"type": "overlay", "device": "overlay", "o": options},
                },
            },
        }
    ]


def _bind(bind: Bind) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": bind.source,
        "Target": bind.target,
        "ReadOnly": bind.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }

"""Compare what a container was asked to have with what the engine and, where it can be read, the kernel say.

The process looked at is the one that waits to become the first command: it has given up all that a command
may not have. A control that rests on the engine's word alone is ``configured``, never ``observed``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sandboxes.base import Control, ControlState, SandboxSpec
from sandboxes.docker.config import CAPABILITIES, RESERVED_PIDS, Plan, create_body
from sandboxes.docker.groups import Groups, read_groups
from sandboxes.procfs import children, colon_table, limits_table, mount_table

_NAMESPACES: Final = {
    "pid_namespace": "pid",
    "mount_namespace": "mnt",
    "network_namespace": "net",
    "ipc_namespace": "ipc",
    "uts_namespace": "uts",
}
_HELD_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapAmb")
# KILL, SETGID and SETUID by number; what the bounding set still names no command can ever get.
_BOUNDING: Final = 1 << 5 | 1 << 6 | 1 << 7
_COMMAND_FILTERS: Final = 2
_MASKED: Final = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """What /proc said about the guest and about the process that will be a command."""

    guest: Mapping[str, str]
    command: Mapping[str, str]
    limits: Mapping[str, str]
    namespaces: Mapping[str, str | None]
    host_namespaces: Mapping[str, str]
    mounts: Mapping[str, tuple[str, str]]
    interfaces: tuple[str, ...]
    groups: Groups


def observe(guest_pid: int) -> Sighting | None:
    """Read /proc for the waiting command of a guest; None when it cannot be found or read."""
    for keeper in children(guest_pid):
        for waiting in children(keeper):
            return _sighting(guest_pid, waiting)
    return None


def controls(
    spec: SandboxSpec, plan: Plan, inspected: Mapping[str, Any], sighting: Sighting | None
) -> tuple[Control, ...]:
    """Return every control with its configured and observed state."""
    asked = _asked_controls(plan, inspected)
    if plan.runtime == "runsc":
        # The processes inside are gVisor's own; the host's /proc shows its kernel instead of them.
        return (*asked, *_unseen(spec, plan, state="configured"))
    if plan.copied is not None:
        # Another host's kernel: its /proc is out of reach.
        return (*asked, *_unseen(spec, plan, state="configured"))
    if sighting is None:
        return (*asked, *_unseen(spec, plan, state="unknown"))
    return (
        *asked,
        *_namespace_controls(sighting),
        *_privilege_controls(plan, sighting),
        *_file_system_controls(spec, plan, sighting),
        *_limit_controls(plan, sighting),
    )


def missing_controls(found: tuple[Control, ...]) -> str:
    """Say which required controls do not hold; empty when all do."""
    return "; ".join(
        f"{item.name} is {item.observed}" for item in found if item.required and item.state == "missing"
    )


def _asked_controls(plan: Plan, inspected: Mapping[str, Any]) -> tuple[Control, ...]:
    """Look for each setting of the request in what the engine says that it made."""
    wanted, host = create_body(plan), inspected.get("HostConfig") or {}
    compared = (
        "Runtime", "NetworkMode", "IpcMode", "PidMode", "Privileged", "ReadonlyRootfs", "Memory",
        "MemorySwap", "NanoCpus", "PidsLimit", "UsernsMode", "ShmSize",
    )  # fmt: skip
    wrong = [name for name in compared if not _same(host.get(name), wanted["HostConfig"][name])]
    wrong += [
        name for name in ("CapDrop", "CapAdd") if _names(host, name) != _names(wanted["HostConfig"], name)
    ]
    if sorted(host.get("SecurityOpt") or ()) != sorted(wanted["HostConfig"]["SecurityOpt"]):
        wrong.append("SecurityOpt")
    if plan.copied and host.get("ReadonlyPaths") != wanted["HostConfig"]["ReadonlyPaths"]:
        wrong.append("ReadonlyPaths")
    if (host.get("LogConfig") or {}).get("Type") != "none":
        wrong.append("LogConfig")
    if host.get("Binds") or host.get("Devices") or host.get("PortBindings"):
        wrong.append("Binds, Devices or PortBindings")
    wrong += [] if inspected.get("Image") == plan.image else ["Image"]
    said = f"the engine says otherwise of {', '.join(wrong)}" if wrong else "as asked"
    return (_control("engine_configuration", "as asked", said, holds=not wrong),)


def _same(seen: object, wanted: object) -> bool:
    return seen == wanted or (not seen and not wanted)


def _names(host: Mapping[str, Any], key: str) -> set[str]:
    return {str(name).removeprefix("CAP_") for name in host.get(key) or ()}


def _unseen(spec: SandboxSpec, plan: Plan, *, state: ControlState) -> tuple[Control, ...]:
    limits = spec.limits
    asked = {
        "no_new_privileges": "1",
        "seccomp": "filter",
        "capabilities": "none",
        "uid": str(plan.uid),
        "read_only_root": "ro",
        "network_namespace": "own",
        "pid_namespace": "own",
        "memory": str(limits.memory_bytes),
        "pids": str(limits.pids),
        "disk": f"{limits.disk_bytes} bytes, {limits.inodes} inodes",
        "covers": f"{len(spec.hidden) + len(spec.read_only)} paths",
    }
    return tuple(
        Control(name=name, configured=value, observed=None, state=state) for name, value in asked.items()
    )


def _sighting(guest_pid: int, pid: int) -> Sighting | None:
    folder = Path(f"/proc/{pid}")
    try:
        return Sighting(
            guest=colon_table(Path(f"/proc/{guest_pid}/status")),
            command=colon_table(folder / "status"),
            limits=limits_table(folder / "limits"),
            namespaces={kind: _namespace(folder / "ns" / kind) for kind in _NAMESPACES.values()},
            host_namespaces={kind: os.readlink(f"/proc/self/ns/{kind}") for kind in _NAMESPACES.values()},
            mounts=mount_table(folder / "mountinfo"),
            interfaces=_interfaces(folder / "net" / "dev"),
            groups=read_groups(pid),
        )
    except OSError:
        return None


def _namespace_controls(sighting: Sighting) -> tuple[Control, ...]:
    separate = tuple(
        _namespace_control(name, sighting.namespaces[kind], sighting.host_namespaces[kind])
        for name, kind in _NAMESPACES.items()
    )
    interfaces = " ".join(sighting.interfaces) or "none"
    return (*separate, _control("network", "loopback alone", interfaces, holds=interfaces in ("lo", "none")))


def _namespace_control(name: str, seen: str | None, hosts: str) -> Control:
    if seen is None:
        # Not for an ordinary user to see: there it rests on what the engine says that it made.
        return _watched(name, "own")
    return _control(name, "own", seen, holds=seen != hosts)


def _privilege_controls(plan: Plan, sighting: Sighting) -> tuple[Control, ...]:
    status, guest = sighting.command, sighting.guest
    held = " ".join(f"{name}={status.get(name)}" for name in _HELD_SETS if int(status.get(name, "1"), 16))
    bounding = int(status.get("CapBnd", "1"), 16)
    filters = status.get("Seccomp_filters")
    filtered = status.get("Seccomp") == "2" and (filters is None or int(filters) >= _COMMAND_FILTERS)
    uids, groups = set(status.get("Uid", "0").split()), status.get("Groups", "")
    mine = int(guest.get("CapPrm", "1"), 16)
    return (
        _control("no_new_privileges", "1", status.get("NoNewPrivs"), holds=status.get("NoNewPrivs") == "1"),
        _control(
            "seccomp", "two filters", f"mode {status.get('Seccomp')}, {filters} filters", holds=filtered
        ),
        _control("capabilities", "none", held or "none", holds=not held),
        _control("bounding_set", f"{_BOUNDING:x}", f"{bounding:x}", holds=bounding | _BOUNDING == _BOUNDING),
        _control("guest_capabilities", " ".join(CAPABILITIES), f"{mine:x}", holds=mine == _BOUNDING),
        _control(
            "uid", str(plan.uid), " ".join(sorted(uids)), holds=uids == {str(plan.uid)} and plan.uid != 0
        ),
        _control("groups", "none", groups or "none", holds=not groups.replace(str(plan.gid), "").strip()),
    )


def _file_system_controls(spec: SandboxSpec, plan: Plan, sighting: Sighting) -> tuple[Control, ...]:
    mounts = sighting.mounts
    root, workspace, temporary = mounts.get("/"), mounts.get(spec.mount), mounts.get("/tmp")  # noqa: S108
    wanted = "overlay" if plan.overlay else "tmpfs"
    bare = [path for path in _MASKED if path in _present_masks() and path not in mounts]
    covers = [bind.target for bind in plan.binds if bind.target.startswith(f"{spec.mount}/")]
    open_covers = [path for path in covers if not _is_read_only(mounts.get(path))]
    return (
        _mount_control("read_only_root", "ro", root, holds=_is_read_only(root)),
        _mount_control(
            "workspace_layer", wanted, workspace, holds=bool(workspace and workspace[0] == wanted)
        ),
        _mount_control("tmp", "sized tmpfs", temporary, holds=bool(temporary and "size=" in temporary[1])),
        _control("masked_paths", "masked", " ".join(bare) or "masked", holds=not bare),
        _control(
            "covers",
            f"{len(covers)} paths",
            f"{len(covers) - len(open_covers)} paths"
            + (f", none on {open_covers[0]!a}" if open_covers else ""),
            holds=not open_covers,
        ),
    )


def _present_masks() -> set[str]:
    return {path for path in _MASKED if os.path.exists(path)}


def _mount_control(name: str, configured: str, seen: tuple[str, str] | None, *, holds: bool) -> Control:
    return _control(name, configured, None if seen is None else f"{seen[0]} {seen[1][:80]}", holds=holds)


def _limit_controls(plan: Plan, sighting: Sighting) -> tuple[Control, ...]:
    limits, seen, groups = plan.limits, sighting.limits, sighting.groups
    host = create_body(plan)["HostConfig"]
    rows = {
        "files": ("Max open files", limits.open_files),
        "file_size": ("Max file size", limits.file_bytes),
        "cpu_seconds": ("Max cpu time", limits.cpu_seconds),
        "core": ("Max core file size", 0),
    }
    return (
        *(
            _control(name, str(value), seen.get(row), holds=seen.get(row) == str(value))
            for name, (row, value) in rows.items()
        ),
        _group_control("memory", host["Memory"], groups.memory_bytes),
        _group_control("pids", limits.pids + RESERVED_PIDS, groups.pids),
        _group_control("cpus", limits.cpus, groups.cpus),
        _watched("output", f"{limits.output_limit_bytes} bytes"),
        _watched("wall", "per command"),
        _watched("disk", f"{limits.disk_bytes} bytes, {limits.inodes} inodes"),
    )


def _group_control(name: str, wanted: float, seen: float | None) -> Control:
    if seen is None:
        return Control(name=name, configured=str(wanted), observed=None, state="unknown")
    return _control(name, str(wanted), str(seen), holds=0 < seen <= wanted)


def _watched(name: str, configured: str) -> Control:
    return Control(name=name, configured=configured, observed=None, state="configured")


def _control(name: str, configured: str, observed: str | None, *, holds: bool) -> Control:
    state: ControlState = "observed" if holds else "missing"
    return Control(name=name, configured=configured, observed=observed, state=state)


def _is_read_only(mount: tuple[str, str] | None) -> bool:
    return mount is not None and "ro" in mount[1].split(" ")[0].split(",")


def _namespace(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except PermissionError:
        return None


def _interfaces(path: Path) -> tuple[str, ...]:
    return tuple(line.partition(":")[0].strip() for line in path.read_text().splitlines()[2:])

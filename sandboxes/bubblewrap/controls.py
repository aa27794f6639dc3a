"""Compare what was configured with what the kernel says of the live sandbox, read from outside it.

The process looked at is the one that waits to become the first command: it has given up everything that a
command may not have, so what holds for it holds for every command. Nothing that the guest claims is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandboxes.base import Control, SandboxSpec
from sandboxes.bubblewrap.argv import AREA
from sandboxes.procfs import children, colon_table, limits_table, mount_table

_NAMESPACES = {
    "user_namespace": "user",
    "pid_namespace": "pid",
    "mount_namespace": "mnt",
    "network_namespace": "net",
    "ipc_namespace": "ipc",
    "uts_namespace": "uts",
}
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_SECCOMP_FILTER = "2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """What /proc said about the process that will be a command, and about the host itself."""

    status: Mapping[str, str]
    limits: Mapping[str, str]
    namespaces: Mapping[str, str]
    host_namespaces: Mapping[str, str]
    mounts: Mapping[str, tuple[str, str]]
    environment: bytes | None
    processors: int | None


def observe(guest_pid: int) -> Sighting | None:
    """Read /proc for the waiting command of a guest; None when it cannot be found."""
    for waiting in children(guest_pid):
        return _sighting(waiting, guest_pid)
    return None


def controls(
    spec: SandboxSpec, sighting: Sighting | None, *, host_uid: int, key_ring: bool
) -> tuple[Control, ...]:
    """Return every control with its configured and observed state."""
    if sighting is None:
        unseen = Control(name="observation", configured="/proc", observed=None, state="missing")
        return (unseen,)
    return (
        *_namespace_controls(sighting),
        *_privilege_controls(sighting, host_uid),
        *_file_system_controls(spec, sighting),
        *_limit_controls(spec, sighting),
        Control(
            name="key_ring",
            configured="new session key ring",
            observed="joined" if key_ring else None,
            state="configured" if key_ring else "unknown",
            required=False,
        ),
    )


def _sighting(pid: int, guest_pid: int) -> Sighting | None:
    folder = Path(f"/proc/{pid}")
    try:
        return Sighting(
            status=colon_table(folder / "status"),
            limits=limits_table(folder / "limits"),
            namespaces={kind: os.readlink(folder / "ns" / kind) for kind in _NAMESPACES.values()},
            host_namespaces={kind: os.readlink(f"/proc/self/ns/{kind}") for kind in _NAMESPACES.values()},
            mounts=mount_table(folder / "mountinfo"),
            environment=_environment(Path(f"/proc/{guest_pid}/environ")),
            processors=len(os.sched_getaffinity(pid)),
        )
    except OSError:
        return None


def _namespace_controls(sighting: Sighting) -> tuple[Control, ...]:
    return tuple(
        _control(name, "own", seen := sighting.namespaces[kind], holds=seen != sighting.host_namespaces[kind])
        for name, kind in _NAMESPACES.items()
    )


def _privilege_controls(sighting: Sighting, host_uid: int) -> tuple[Control, ...]:
    status = sighting.status
    capabilities = {name: int(status.get(name, "1"), 16) for name in _CAPABILITY_SETS}
    held = " ".join(f"{name}={value:x}" for name, value in capabilities.items() if value) or "none"
    uids = set(status.get("Uid", "0").split())
    return (
        _control("no_new_privileges", "1", status.get("NoNewPrivs"), holds=status.get("NoNewPrivs") == "1"),
        _control("seccomp", "filter", status.get("Seccomp"), holds=status.get("Seccomp") == _SECCOMP_FILTER),
        _control("capabilities", "none", held, holds=not any(capabilities.values())),
        _control(
            "uid", str(host_uid), " ".join(sorted(uids)), holds=uids == {str(host_uid)} and host_uid != 0
        ),
        _environment_control(sighting.environment),
    )


def _environment_control(environment: bytes | None) -> Control:
    if environment is None:
        return Control(
            name="empty_environment", configured="0 bytes", observed=None, state="configured", required=False
        )
    # bubblewrap itself sets PWD for the program it starts.
    rest = [entry for entry in environment.split(b"\0") if entry and not entry.startswith(b"PWD=")]
    return _control("empty_environment", "0 variables", f"{len(rest)} variables", holds=not rest)


def _file_system_controls(spec: SandboxSpec, sighting: Sighting) -> tuple[Control, ...]:
    mounts = sighting.mounts
    root, system, hidden = mounts.get("/"), mounts.get("/usr"), mounts.get(AREA)
    workspace, temporary = mounts.get(spec.mount), mounts.get("/tmp")  # noqa: S108
    disk = mounts.get(spec.mount, ("none", ""))[0]
    return (
        _mount_control("read_only_root", "ro", root, holds=_is_read_only(root) and _is_read_only(system)),
        _mount_control("guest_area_hidden", "empty tmpfs", hidden, holds=_is_read_only(hidden)),
        _mount_control("workspace_layer", "overlay or tmpfs", workspace, holds=disk in ("overlay", "tmpfs")),
        _mount_control(
            "tmp", "sized tmpfs", temporary, holds=temporary is not None and "size=" in temporary[1]
        ),
        _covers_control(spec, mounts),
    )


def _covers_control(spec: SandboxSpec, mounts: Mapping[str, tuple[str, str]]) -> Control:
    """Look for a read-only mount on everything to be hidden or protected; a link can carry none."""
    wanted = [path for path in (*spec.hidden, *spec.read_only) if not (spec.workspace / path).is_symlink()]
    bare = [path for path in wanted if not _is_read_only(mounts.get(f"{spec.mount}/{path}"))]
    seen = f"{len(wanted) - len(bare)} paths" + (f", none on {bare[0]!a}" if bare else "")
    return _control("covers", f"{len(wanted)} paths", seen, holds=not bare)


def _mount_control(name: str, configured: str, seen: tuple[str, str] | None, *, holds: bool) -> Control:
    return _control(name, configured, None if seen is None else f"{seen[0]} {seen[1][:80]}", holds=holds)


def _limit_controls(spec: SandboxSpec, sighting: Sighting) -> tuple[Control, ...]:
    limits = spec.limits
    seen = sighting.limits
    expected = {
        "pids": ("Max processes", limits.pids + 1),
        "files": ("Max open files", limits.open_files),
        "file_size": ("Max file size", limits.file_bytes),
        "cpu_seconds": ("Max cpu time", limits.cpu_seconds),
        "core": ("Max core file size", 0),
    }
    processors = sighting.processors or 0
    return (
        *(
            _control(name, str(value), seen.get(row), holds=seen.get(row) == str(value))
            for name, (row, value) in expected.items()
        ),
        _control("cpus", str(limits.cpus), str(processors), holds=0 < processors <= limits.cpus),
        _watched("memory", f"{limits.memory_bytes} bytes, sampled every 20 ms"),
        _watched("output", f"{limits.output_limit_bytes} bytes"),
        _watched("wall", "per command"),
        _watched("disk", f"{limits.disk_bytes} bytes, {limits.inodes} inodes"),
    )


def _watched(name: str, configured: str) -> Control:
    return Control(name=name, configured=configured, observed=None, state="configured")


def _control(name: str, configured: str, observed: str | None, *, holds: bool) -> Control:
    return Control(
        name=name, configured=configured, observed=observed, state="observed" if holds else "missing"
    )


def _is_read_only(mount: tuple[str, str] | None) -> bool:
    return mount is not None and "ro" in mount[1].split(" ")[0].split(",")


def _environment(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None

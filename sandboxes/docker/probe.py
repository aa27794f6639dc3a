"""Whether an engine's sandboxes can be had here, what they stand on, and what is known against it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import docker

from sandboxes.base import BackendReport
from sandboxes.docker.engine import Engine, EngineFacts, engine
from sandboxes.docker.image import look_for_image
from sandboxes.docker.launch import DEFAULT_RUNTIME
from sandboxes.docker.reap import DEFAULT_IMAGE
from sandboxes.errors import SandboxError

# CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 are mended in these.
_RUNC_MENDED: Final = ((1, 2, 8), (1, 3, 3), (1, 4, 0))
# CVE-2024-21626.
_RUNC_LEAKS: Final = (1, 1, 12)


def report() -> BackendReport:
    """Ask the engine; nothing is started."""
    details: dict[str, str] = {}
    try:
        found = engine()
        facts = found.facts_now()
        details.update(_details(found, facts))
        image = found.ask_now("look for the image", lambda api: look_for_image(api, DEFAULT_IMAGE))
        details["image"] = f"{DEFAULT_IMAGE} {image.id}"
    except SandboxError as error:
        return _unusable(str(error), error.hint, details)
    return BackendReport(
        backend="docker",
        usable=True,
        version=facts.version,
        reason=None,
        hint=None,
        details=details,
        warnings=tuple(_warnings(facts, details)),
    )


def _unusable(reason: str, hint: str | None, details: dict[str, str]) -> BackendReport:
    return BackendReport(
        backend="docker", usable=False, version=None, reason=reason, hint=hint, details=details
    )


def _details(found: Engine, facts: EngineFacts) -> dict[str, str]:
    versions = found.ask_now("ask for versions", _versions)
    return {
        "engine": facts.version,
        "kernel": facts.kernel,
        "control_groups": f"version {facts.cgroup_version}",
        "mode": "rootless" if any("rootless" in option for option in facts.security) else "rootful",
        "runtimes": ", ".join(facts.runtimes),
        "workspace": "overlay" if facts.near else "copy",
        "gvisor": "runtime: runsc can be used" if "runsc" in facts.runtimes else "not configured",
        **versions,
    }


def _versions(api: docker.APIClient) -> dict[str, str]:
    said: dict[str, Any] = api.version()
    parts = {str(part.get("Name", "")): str(part.get("Version", "")) for part in said.get("Components") or ()}
    return {name: parts[name] for name in ("runc", "containerd") if name in parts}


def _warnings(facts: EngineFacts, details: dict[str, str]) -> Iterator[str]:
    runc = _numbers(details.get("runc", ""))
    if runc is not None and DEFAULT_RUNTIME in facts.runtimes:
        if runc < _RUNC_LEAKS:
            yield f"runc {details['runc']} leaks a directory of the host to containers (CVE-2024-21626)"
        if not _is_mended(runc):
            yield (
                f"runc {details['runc']} has known escapes (CVE-2025-31133, -52565, -52881); "
                "update it to 1.2.8, 1.3.3 or newer"
            )
    if not facts.near:
        yield (
            "the engine does not share this host's directories and users: workspaces are sent to it and "
            "brought back after each call"
        )
    if not any("name=seccomp" in option for option in facts.security):
        yield "the engine was built without seccomp: no sandbox will start"
    if "runsc" not in facts.runtimes:
        yield "gVisor is not configured: runtime: runsc cannot be used"


def _is_mended(version: tuple[int, ...]) -> bool:
    for mended in _RUNC_MENDED:
        if version[:2] == mended[:2]:
            return version >= mended
    return version > _RUNC_MENDED[-1]


def _numbers(text: str) -> tuple[int, ...] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return None if found is None else tuple(map(int, found.groups()))

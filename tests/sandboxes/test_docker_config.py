"""What an engine is asked for, word by word: a change of the policy must show here."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import MAGIC_NUMBER

import pytest

from sandboxes.base import ResourceLimits
from sandboxes.docker import ownership
from sandboxes.docker.config import Bind, Overlay, Plan, create_body
from sandboxes.docker.failure import classify
from sandboxes.docker.ownership import Owner, is_abandoned, labels
from sandboxes.docker.probe import _is_mended
from sandboxes.docker.profile import seccomp_profile
from sandboxes.docker.program import MAGIC_BYTES, guest_program
from sandboxes.seccomp import refused_names
from tests.engine import ROOT

MIB = 1024 * 1024


def plan(**changes):
    values = {
        "name": "remit-x",
        "image": "sha256:1",
        "runtime": "runc",
        "code": "pass",
        "mount": "/workspace",
        "uid": 64200,
        "gid": 64200,
        "limits": ResourceLimits(),
        "overlay": Overlay(volume="v", lower="/p/l", upper="/p/u", work="/p/w", user_marks=False),
        "binds": (Bind(source="/p/hosts", target="/etc/hosts"),),
        "labels": {"remit.sandbox": "x"},
        "by_stream": False,
        **changes,
    }
    return Plan(**values)


def test_the_whole_request_is_as_it_was_reviewed():
    body = create_body(plan())
    host = body.pop("HostConfig")
    host.pop("SecurityOpt")

    assert body == {
        "Image": "sha256:1",
        "User": "0:0",
        "Entrypoint": ["python3", "-I", "-S", "-c", "pass"],
        "Cmd": ["/.remit/channel"],
        "Env": [],
        "WorkingDir": "/",
        "Hostname": "remit",
        "Labels": {"remit.sandbox": "x"},
        "Volumes": {},
        "ExposedPorts": {},
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGKILL",
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "NetworkDisabled": True,
    }
    assert host == {
        "Runtime": "runc",
        "NetworkMode": "none",
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "CgroupnsMode": "private",
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": ["KILL", "SETGID", "SETUID"],
        "Devices": [],
        "DeviceRequests": [],
        "PublishAllPorts": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "LogConfig": {"Type": "none", "Config": {}},
        "Init": False,
        "OomKillDisable": None,
        "Memory": (512 + 256 + 64 + 16 + 64) * MIB,
        "MemorySwap": (512 + 256 + 64 + 16 + 64) * MIB,
        "MemorySwappiness": None,
        "NanoCpus": 1_000_000_000,
        "PidsLimit": 160,
        "ShmSize": 16 * MIB,
        "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 4096}, {"Name": "core", "Soft": 0, "Hard": 0}],
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,size={64 * MIB},nr_inodes=16384,mode=1777"},
        "Mounts": [
            {
                "Type": "volume",
                "Source": "v",
                "Target": "/workspace",
                "VolumeOptions": {
                    "NoCopy": True,
                    "Labels": {"remit.sandbox": "x"},
                    "DriverConfig": {
                        "Name": "local",
                        "Options": {
                            "type": "overlay",
                            "device": "overlay",
                            "o": "lowerdir=/p/l,upperdir=/p/u,workdir=/p/w,"
                            "redirect_dir=off,metacopy=off,index=off,nosuid,nodev",
                        },
                    },
                },
            },
            {
                "Type": "bind",
                "Source": "/p/hosts",
                "Target": "/etc/hosts",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rprivate"},
            },
        ],
    }


def test_an_ordinary_users_layer_has_marks_that_its_owner_can_read():
    overlay = Overlay(volume="v", lower="/p/l", upper="/p/u", work="/p/w", user_marks=True)
    options = create_body(plan(overlay=overlay))["HostConfig"]["Mounts"][0]["VolumeOptions"]

    assert ",userxattr," in options["DriverConfig"]["Options"]["o"]


def test_the_profile_permits_nothing_that_the_commands_filter_refuses():
    rules = seccomp_profile()["syscalls"]
    allowed = {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}

    assert seccomp_profile()["defaultAction"] == "SCMP_ACT_ERRNO"
    assert allowed & set(refused_names()) == set()
    for name in ("keyctl", "io_uring_setup", "userfaultfd", "ptrace", "bpf", "unshare", "mount", "clone3"):
        assert name not in allowed


def test_sockets_of_virtual_machines_are_not_permitted():
    rules = [rule for rule in seccomp_profile()["syscalls"] if rule["names"] == ["socket"]]

    assert {rule["args"][0]["value"] for rule in rules} == {1, 2, 10, 16}


def test_the_arguments_hold_no_more_than_a_call_for_the_program_which_holds_no_host_path():
    program = guest_program()

    compile(program.code, "boot", "exec")
    assert len(program.code) < 2048
    assert str(ROOT).encode() not in program.sources + program.compiled


def test_a_python_of_the_same_version_gets_the_program_compiled_and_another_one_its_sources():
    program = guest_program()

    same, other = program.answer_to(MAGIC_NUMBER), program.answer_to(b"\0" * MAGIC_BYTES)

    assert (same[:1], same[5:]) == (b"c", program.compiled)
    assert (other[:1], other[5:]) == (b"s", program.sources)
    assert int.from_bytes(other[1:5], "big") == len(program.sources)


def test_the_options_hold_the_profile_as_one_json_text():
    (option,) = [o for o in create_body(plan())["HostConfig"]["SecurityOpt"] if o.startswith("seccomp=")]

    assert json.loads(option.removeprefix("seccomp=")) == seccomp_profile()


def test_what_this_process_owns_is_not_abandoned():
    assert not is_abandoned(labels("x", lifetime_seconds=60))


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({}, False),
        ({"started": 1}, True),
        ({"boot": "another"}, True),
        ({"namespace": "pid:[1]", "started": 1}, False),
        ({"host": "another", "started": 1}, False),
    ],
)
def test_an_owner_is_gone_only_when_that_is_known(changes, gone):
    me = Owner.this_process()
    values = {name: getattr(me, name) for name in ("pid", "started", "boot", "namespace", "host")}

    assert Owner(**{**values, **changes}).is_gone() is gone


def test_an_owner_is_read_as_it_was_written():
    assert Owner.parse(str(Owner.this_process())) == Owner.this_process()
    assert Owner.parse("nonsense") is None


def test_past_its_deadline_is_abandoned_what_nobody_is_known_to_have_and_what_is_not_ours_never():
    mine = labels("x", lifetime_seconds=-1)
    elsewhere = str(replace(Owner.this_process(), host="another"))

    assert is_abandoned({**mine, "remit.owner": elsewhere})
    assert not is_abandoned(mine)
    assert not is_abandoned({"other": "1"})


def test_a_process_that_is_hidden_from_us_is_not_taken_for_dead(monkeypatch):
    monkeypatch.setattr(ownership, "started", lambda pid: None)

    assert not Owner.this_process().is_gone()
    assert not is_abandoned(labels("x", lifetime_seconds=60))


@pytest.mark.parametrize(
    ("version", "mended"),
    [
        ((1, 1, 5), False),
        ((1, 2, 7), False),
        ((1, 2, 8), True),
        ((1, 3, 2), False),
        ((1, 3, 3), True),
        ((1, 4, 0), True),
        ((2, 0, 0), True),
    ],
)
def test_versions_of_runc_with_known_escapes_are_known(version, mended):
    assert _is_mended(version) is mended


def test_an_engine_that_cannot_be_reached_is_lost_and_one_that_is_slow_unresponsive():
    import requests.exceptions

    lost = classify(requests.exceptions.ConnectionError("refused"), during="x")
    slow = classify(requests.exceptions.ReadTimeout("slow"), during="x")

    assert (lost.code, slow.code) == ("sandbox.engine_lost", "sandbox.engine_unresponsive")

"""The filter is evaluated twice: by a small interpreter over many calls, and by the kernel over real ones."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes import seccomp
from sandboxes.errors import SandboxUnavailable

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = "allow", "kill"
MACHINES = ("x86_64", "aarch64")
ALL_NAMES = {**seccomp._JUDGED_BY_ARGUMENTS, **seccomp._NOT_PERMITTED, **seccomp._NOT_THERE}


def number(machine, name):
    return ALL_NAMES[name][MACHINES.index(machine)]


def evaluate(program: bytes, *, arch: int, nr: int, args=()):
    """Walk the program over one call's `seccomp_data`; a jump out of the program is an IndexError."""
    padded = [*args, *([0] * (6 - len(args)))]
    data = struct.pack("<IIQ6Q", nr & 0xFFFFFFFF, arch, 0x1000, *(value & (2**64 - 1) for value in padded))
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        operation, if_true, if_false, constant = code[at]
        at += 1
        if operation == 0x20:
            assert constant % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, constant)
            continue
        if operation == 0x06:
            return verdict(constant)
        taken = {
            0x15: accumulator == constant,
            0x25: accumulator > constant,
            0x45: bool(accumulator & constant),
        }[operation]
        at += if_true if taken else if_false


def verdict(value):
    if value == 0x7FFF0000:
        return ALLOW
    if value == 0x80000000:
        return KILL
    assert value & 0xFFFF0000 == 0x00050000
    return value & 0xFFFF


def ask(machine, name, *args):
    return evaluate(seccomp.build_filter(machine), arch=ARCH[machine], nr=number(machine, name), args=args)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_refused_with_its_answer(machine):
    column = MACHINES.index(machine)
    program = seccomp.build_filter(machine)

    for table, answer in ((seccomp._NOT_PERMITTED, errno.EPERM), (seccomp._NOT_THERE, errno.ENOSYS)):
        for name, numbers in table.items():
            if numbers[column] is not None:
                assert evaluate(program, arch=ARCH[machine], nr=numbers[column]) == answer, name


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
)
def test_clone_with_any_namespace_flag_is_refused(machine, flag):
    assert ask(machine, "clone", 0x11 | flag) == errno.EPERM
    assert ask(machine, "clone", 0x11 | flag | (1 << 63)) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "args", "answer"),
    [
        ("clone", (0x003D0F00,), ALLOW),
        ("clone", (0x01200011,), ALLOW),
        ("clone3", (0x7FFF0000, 88), errno.ENOSYS),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), errno.EPERM),
        ("ioctl", (0, 0x5412 | 0xABCD00000000), errno.EPERM),
        ("ioctl", (0, 0x541C), errno.EPERM),
        ("ioctl", (0, 0x5423), errno.EPERM),
        ("ioctl", (0x5412, 0x5413), ALLOW),
        ("socket", (1, 1, 0), ALLOW),
        ("socket", (2, 2, 17), ALLOW),
        ("socket", (10, 1, 6), ALLOW),
        ("socket", (16, 3, 0), ALLOW),
        ("socket", (16, 3, 12), errno.EPROTONOSUPPORT),
        ("socket", (40, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (40 | 1 << 32, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (1 | 1 << 32, 1, 0), ALLOW),
        ("socket", (38, 5, 0), errno.EAFNOSUPPORT),
        ("socket", (17, 3, 0), errno.EAFNOSUPPORT),
        ("socket", (0, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (0xFFFFFFFF, 1, 0), errno.EAFNOSUPPORT),
        ("socketpair", (1, 1, 0), ALLOW),
        ("socketpair", (40, 1, 0), errno.EAFNOSUPPORT),
        ("socketpair", (30, 1, 0), errno.EAFNOSUPPORT),
        ("setsockopt", (3, 1, 7), 0),
        ("setsockopt", (3, 1, 8), 0),
        ("setsockopt", (3, 1 | 1 << 32, 7 | 1 << 32), 0),
        ("setsockopt", (3, 1, 2), ALLOW),
        ("setsockopt", (3, 6, 7), ALLOW),
        ("prlimit64", (0, 7, 0x7FFF1234, 0), ALLOW),
        ("prlimit64", (1, 7, 0, 0x7FFF1234), ALLOW),
        ("prlimit64", (1, 7, 0x7FFF1234, 0), errno.EPERM),
        ("prlimit64", (1, 7, 0x7FFF00000000, 0), errno.EPERM),
        ("prlimit64", (1 << 32, 7, 0x7FFF1234, 0), ALLOW),
        ("setpriority", (0, 0, 10), ALLOW),
        ("setpriority", (1, 0, 10), ALLOW),
        ("setpriority", (2, 0, 10), errno.EPERM),
        ("setpriority", (0, 1, 10), errno.EPERM),
        ("ioprio_set", (1, 0, 3), ALLOW),
        ("ioprio_set", (3, 0, 3), errno.EPERM),
        ("ioprio_set", (1, 1, 3), errno.EPERM),
        ("sched_setscheduler", (0, 0, 0), ALLOW),
        ("sched_setscheduler", (1, 0, 0), errno.EPERM),
        ("sched_setparam", (1, 0), errno.EPERM),
        ("sched_setattr", (0, 0, 0), ALLOW),
        ("sched_setattr", (1, 0, 0), errno.EPERM),
        ("sched_setaffinity", (0, 8, 0), errno.EPERM),
        ("personality", (0,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x0040000,), ALLOW),
        ("personality", (0x0400000,), errno.EPERM),
        ("personality", (8,), errno.EPERM),
    ],
)
def test_calls_judged_by_their_arguments(machine, name, args, answer):
    assert ask(machine, name, *args) == answer


@pytest.mark.parametrize("machine", MACHINES)
@given(arch=st.integers(0, 2**32 - 1), nr=st.integers(0, 2**32 - 1))
def test_another_architecture_kills_whatever_the_call(machine, arch, nr):
    if arch != ARCH[machine]:
        assert evaluate(seccomp.build_filter(machine), arch=arch, nr=nr) == KILL


@pytest.mark.parametrize("machine", MACHINES)
@given(nr=st.integers(470, 2**32 - 1))
def test_unknown_and_x32_calls_do_not_exist(machine, nr):
    assert evaluate(seccomp.build_filter(machine), arch=ARCH[machine], nr=nr) == errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
@given(nr=st.integers(0, 469), args=st.tuples(*[st.integers(0, 2**64 - 1)] * 6))
def test_a_call_that_is_not_listed_is_allowed_whatever_its_arguments(machine, nr, args):
    listed = {numbers[MACHINES.index(machine)] for numbers in ALL_NAMES.values()}
    if nr not in listed:
        assert evaluate(seccomp.build_filter(machine), arch=ARCH[machine], nr=nr, args=args) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_fits_the_kernels_limits(machine):
    program = seccomp.build_filter(machine)

    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096
    for at in range(0, len(program), 8):
        operation, if_true, if_false, _ = struct.unpack_from("<HBBI", program, at)
        if operation != 0x06:
            assert at // 8 + 1 + max(if_true, if_false) < len(program) // 8


def test_a_machine_without_a_filter_is_refused():
    with pytest.raises(SandboxUnavailable) as refused:
        seccomp.build_filter("riscv64")

    assert "riscv64" in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")),
        ("aarch64", Path("/usr/include/asm-generic/unistd.h")),
    ],
)
def test_numbers_agree_with_the_kernel_headers(machine, header):
    if not header.exists():
        pytest.skip(f"no kernel header {header}")
    known = {
        match[1]: int(match[2])
        for match in re.finditer(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    }

    checked = {name: number(machine, name) for name in ALL_NAMES if name in known}

    assert len(checked) > 70
    assert checked == {name: known[name] for name in checked}


INSTALL = """
import ctypes, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
program = bytes.fromhex(sys.argv[1])
buffer = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
loaded = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(loaded), 0, 0) == 0, os.strerror(ctypes.get_errno())
def call(number, *args):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in args))
    return ctypes.get_errno()
"""


def under_filter(body: str, *, argv=()):
    machine = os.uname().machine
    if machine not in MACHINES:
        pytest.skip(f"no filter for {machine}")
    program = seccomp.build_filter(machine).hex()
    return subprocess.run(
        [sys.executable, "-c", INSTALL + body, program, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_kernel_refuses_the_listed_calls():
    column = MACHINES.index(os.uname().machine) if os.uname().machine in MACHINES else 0
    # reboot, kexec and the like are asked with arguments that do nothing even if they were let through.
    refused = {
        name: (numbers[column], answer)
        for table, answer in ((seccomp._NOT_PERMITTED, errno.EPERM), (seccomp._NOT_THERE, errno.ENOSYS))
        for name, numbers in table.items()
        if numbers[column] is not None and name not in {"vhangup", "reboot", "swapoff", "acct"}
    }

    done = under_filter(
        "wanted = json.loads(sys.argv[2])\n"
        "print(json.dumps({n: call(nr, 0x7fffffff, -1, -1, -1, -1, -1) for n, (nr, _) in wanted.items()}))",
        argv=[json.dumps(refused)],
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: answer for name, (_, answer) in refused.items()}


def test_the_kernel_refuses_by_argument():
    done = under_filter(
        "import fcntl, socket, resource\n"
        "seen = {}\n"
        "def note(name, work):\n"
        "    try: work(); seen[name] = 0\n"
        "    except OSError as error: seen[name] = error.errno\n"
        "note('vsock', lambda: socket.socket(40, socket.SOCK_STREAM))\n"
        "note('alg', lambda: socket.socket(38, socket.SOCK_SEQPACKET))\n"
        "note('packet', lambda: socket.socket(17, socket.SOCK_RAW))\n"
        "note('tiocsti', lambda: fcntl.ioctl(0, 0x5412, b'x'))\n"
        "note('nice_other', lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))\n"
        "note('nice_self', lambda: os.nice(1))\n"
        "note('affinity', lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)))\n"
        "def other(): resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))\n"
        "try: other(); seen['prlimit_other'] = 0\n"
        "except PermissionError: seen['prlimit_other'] = 1\n"
        "note('prlimit_self', lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))\n"
        "print(json.dumps(seen))"
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "vsock": errno.EAFNOSUPPORT,
        "alg": errno.EAFNOSUPPORT,
        "packet": errno.EAFNOSUPPORT,
        "tiocsti": errno.EPERM,
        "nice_other": errno.EPERM,
        "nice_self": 0,
        "affinity": errno.EPERM,
        "prlimit_other": 1,
        "prlimit_self": 0,
    }


def test_ordinary_programs_still_work(tmp_path):
    done = under_filter(
        "import socket, subprocess, threading, multiprocessing, tempfile, asyncio\n"
        "seen = []\n"
        "thread = threading.Thread(target=seen.append, args=('thread',)); thread.start(); thread.join()\n"
        "done = subprocess.run(['/bin/sh', '-c', 'echo sub | cat'], capture_output=True, text=True)\n"
        "seen.append(done.stdout.strip())\n"
        "left, right = socket.socketpair(); left.send(b'unix'); seen.append(right.recv(9).decode())\n"
        "server = socket.create_server(('127.0.0.1', 0)); seen.append('tcp')\n"
        "seen.append(type(socket.if_nameindex()).__name__)\n"
        "context = multiprocessing.get_context('fork')\n"
        "child = context.Process(target=os._exit, args=(7,)); child.start()\n"
        "child.join(); seen.append(child.exitcode)\n"
        "async def spawn():\n"
        "    process = await asyncio.create_subprocess_exec('/bin/true'); return await process.wait()\n"
        "seen.append(asyncio.run(spawn()))\n"
        "print(json.dumps(seen))"
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["thread", "sub", "unix", "tcp", "list", 7, 0]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_works_under_the_filter(tmp_path):
    done = under_filter(
        "import subprocess\n"
        "os.environ.update(GIT_AUTHOR_NAME='a', GIT_AUTHOR_EMAIL='a@b', GIT_COMMITTER_NAME='a',\n"
        "    GIT_COMMITTER_EMAIL='a@b', GIT_CONFIG_GLOBAL='/dev/null', GIT_CONFIG_NOSYSTEM='1')\n"
        "os.chdir(sys.argv[2])\n"
        "open('file', 'w').write('x')\n"
        "for argv in (['init', '-q'], ['add', '.'], ['commit', '-q', '-m', 'one'], ['gc', '-q'], ['fsck']):\n"
        "    subprocess.run(['git', *argv], check=True, capture_output=True)\n",
        argv=[str(tmp_path)],
    )

    assert done.returncode == 0, done.stderr

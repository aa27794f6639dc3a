"""A command tries to speak for the guest, or to stop it: judged by what the next calls answer."""

from __future__ import annotations

import anyio
import pytest

from sandboxes.base import ExecRequest, FileContent

pytestmark = pytest.mark.anyio

ATTACKS = {
    "write into every descriptor of every process": """
        for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
            for number in range(1024):
                try:
                    with open(f"/proc/{pid}/fd/{number}", "wb", buffering=0) as end:
                        end.write(b"\\0\\0\\0\\5ds1:k")
                except OSError:
                    pass
        for number in range(3, 1024):
            try:
                os.write(number, b"\\0\\0\\0\\5ds1:k")
            except OSError:
                pass
    """,
    "take the descriptors of other processes": """
        for pid in (1, os.getppid()):
            pidfd = syscall(434, pid, 0)
            for number in range(1024):
                stolen = syscall(438, pidfd, number, 0)
                if stolen >= 0:
                    print("stolen", number)
                    os.write(stolen, b"\\0\\0\\0\\5ds1:k")
    """,
    "attach a debugger": """
        for pid in (1, os.getppid()):
            for what in (16, 0x4206):
                if syscall(101, what, pid, 0, 0) >= 0:
                    print("attached", pid)
    """,
    "write the memory of init": """
        for pid in (1, os.getppid()):
            for name in ("mem", "maps", "environ", "auxv", "stack", "syscall"):
                try:
                    if open(f"/proc/{pid}/{name}", "rb").read(1):
                        print("read", pid, name)
                except OSError:
                    pass
            try:
                open(f"/proc/{pid}/mem", "r+b")
                print("opened", pid)
            except OSError:
                pass
    """,
    "kill everything": """
        import signal
        for number in range(1, 65):
            if number in (9, 19):
                continue
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        for pid in (-1, 1, 0, os.getppid()):
            for number in (15, 2, 19, 9, 6, 11):
                try:
                    os.kill(pid, number) if pid != 0 else None
                except OSError:
                    pass
    """,
    "take the limits of others away": """
        import struct
        for pid in (1, os.getppid()):
            for resource in range(16):
                answer = syscall(302, pid, resource, struct.pack("QQ", 1, 1), None)
                if answer >= 0:
                    print("limited", pid, resource)
    """,
    "slow everything down": """
        import struct
        for pid in (1, os.getppid()):
            for what, call in (("affinity", lambda: os.sched_setaffinity(pid, {0})),
                               ("nice", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)),
                               ("user", lambda: os.setpriority(os.PRIO_USER, 1000, 19)),
                               ("idle", lambda: os.sched_setscheduler(pid, 5, os.sched_param(0)))):
                try:
                    call()
                    print("slowed", pid, what)
                except OSError:
                    pass
    """,
    "look for the guest's files": """
        for place in ("/.remit", "/.remit/lib", "/.remit/store", "/.remit/lower", "/proc/1/root/.remit/store",
                      "/proc/1/cwd", "/proc/self/root/.remit/lower"):
            try:
                print("found", place, os.listdir(place)) if os.listdir(place) and "cwd" not in place else None
            except OSError:
                pass
    """,
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in ATTACKS.items()])
async def test_the_guest_neither_dies_nor_says_what_the_attacker_wants(opened, attack, body):
    async with opened() as sandbox:
        result = await sandbox.exec(attack(body))
        read = await sandbox.read_file("a.txt", max_bytes=100)
        after = await sandbox.exec(ExecRequest(argv=("sh", "-c", "echo still; ulimit -n; nice")))

    for success in (b"stolen", b"attached", b"read ", b"opened", b"limited", b"found", b"slowed 1"):
        assert success not in result.output
    assert isinstance(read, FileContent)
    assert read.data == b"alpha\n"
    assert after.output == b"still\n1024\n0\n"


async def test_an_attack_does_not_touch_a_command_that_runs_beside_it(opened, attack):
    async with opened() as sandbox, anyio.create_task_group() as tasks:
        results = []

        async def victim():
            results.append(await sandbox.exec(ExecRequest(argv=("sh", "-c", "sleep 1; echo unharmed"))))

        tasks.start_soon(victim)
        await anyio.sleep(0.1)
        for body in ATTACKS.values():
            await sandbox.exec(attack(body))

    assert [result.output for result in results] == [b"unharmed\n"]


async def test_what_a_command_prints_is_output_and_never_a_frame(opened):
    frames = "printf '\\0\\0\\0\\5ds1:k' ; printf '\\0\\0\\0\\5ds1:k' >&2"

    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("sh", "-c", frames)))
        await sandbox.ping()

    assert result.output == b"\0\0\0\5ds1:k" * 2


async def test_a_command_inherits_its_three_descriptors_and_no_other(opened):
    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("ls", "/proc/self/fd")))

    assert result.output.split() == [b"0", b"1", b"2", b"3"]


async def test_a_command_sees_no_process_but_its_own(opened):
    async with opened() as sandbox, anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.exec, ExecRequest(argv=("sleep", "1")))
        result = await sandbox.exec(ExecRequest(argv=("sh", "-c", "ls -d /proc/[0-9]*")))

    assert len(result.output.split()) <= 3


async def test_the_library_cannot_be_replaced_by_files_of_the_command(opened):
    plant = (
        "mkdir -p /tmp/home/lib sandboxes/guest; echo 'raise SystemExit(9)' > sandboxes/guest/main.py;"
        "for name in os struct ctypes sitecustomize usercustomize _hashlib;"
        " do echo 'raise SystemExit(9)' > $name.py; done"
    )

    async with opened() as sandbox:
        await sandbox.exec(ExecRequest(argv=("sh", "-c", plant)))
        flood = await sandbox.exec(ExecRequest(argv=("head", "-c", "3000000", "/dev/zero")))

    assert flood.exit_code == 0
    assert flood.output_bytes == 3_000_000

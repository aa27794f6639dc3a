"""A command in a container against the guest, its keepers and other calls.

The guest is root with three capabilities and the command another uid without any. What an attack did is
judged by what the host sees of the guest and by what later calls answer; what it prints only says which way
it got in.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sandboxes.base import ExecRequest, FileContent, ResourceLimits, SandboxSpec
from sandboxes.docker.sandbox import DockerSandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600, func_only=True)]

OTHERS = """
import signal, struct
def others():
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            yield int(name)
def tried(what, call):
    try:
        result = call()
    except OSError:
        return
    if not isinstance(result, int) or result >= 0:
        print("DONE", what)
for number in (2, 15, 1):
    signal.signal(number, signal.SIG_IGN)
"""

ATTACKS = {
    "write a frame into its descriptors": """
        for pid in others():
            for number in range(1024):
                tried("opened", lambda: os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK))
    """,
    "take its descriptors by pidfd": """
        for pid in others():
            handle = syscall(434, pid, 0)
            for number in (*range(8), *range(890, 910)):
                tried("took", lambda: syscall(438, handle, number, 0))
    """,
    "read what is meant for it": """
        for pid in others():
            for number in (0, 900, 901):
                tried("opened", lambda: os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK))
    """,
    "attach as a debugger": """
        for pid in others():
            tried("attached", lambda: syscall(101, 16, pid, 0, 0))
    """,
    "seize as a debugger": """
        for pid in others():
            tried("seized", lambda: syscall(101, 0x4206, pid, 0, 0))
    """,
    "write its memory by the file": """
        for pid in others():
            tried("opened", lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR))
    """,
    "read its memory by the call": """
        buffer = ctypes.create_string_buffer(8)
        vector = struct.pack("QQ", ctypes.addressof(buffer), 8)
        for pid in others():
            tried("read", lambda: syscall(310, pid, vector, 1, vector, 1, 0))
    """,
    "write its memory by the call": """
        buffer = ctypes.create_string_buffer(8)
        vector = struct.pack("QQ", ctypes.addressof(buffer), 8)
        for pid in others():
            tried("wrote", lambda: syscall(311, pid, vector, 1, vector, 1, 0))
    """,
    "read its environment": """
        for pid in others():
            tried("read", lambda: os.read(os.open(f"/proc/{pid}/environ", os.O_RDONLY), 100))
    """,
    "read its map": """
        for pid in others():
            tried("read", lambda: os.read(os.open(f"/proc/{pid}/maps", os.O_RDONLY), 100))
    """,
    "go through its root and its directory": """
        for pid in others():
            for name in ("root", "cwd"):
                tried("listed", lambda: os.listdir(f"/proc/{pid}/{name}/"))
    """,
    "replace its program": """
        for pid in others():
            tried("opened", lambda: os.open(f"/proc/{pid}/exe", os.O_RDWR))
    """,
    "kill it": """
        for pid in others():
            tried("killed", lambda: os.kill(pid, 9) or 0)
    """,
    "stop it": """
        for pid in others():
            tried("stopped", lambda: os.kill(pid, 19) or 0)
    """,
    "terminate it": """
        for pid in others():
            tried("terminated", lambda: os.kill(pid, 15) or 0)
    """,
    "interrupt it": """
        for pid in others():
            tried("interrupted", lambda: os.kill(pid, 2) or 0)
    """,
    "signal it with every number there is": """
        for pid in others():
            for number in range(1, 65):
                tried("signalled", lambda: os.kill(pid, number) or 0)
    """,
    "kill everything": """
        for number in (15, 2, 10, 12, 9):
            os.fork() or (os.kill(-1, number), os._exit(0))
    """,
    "take its open files away": """
        for pid in others():
            tried("limited", lambda: syscall(302, pid, 7, struct.pack("QQ", 3, 3), None))
    """,
    "take its processor time away": """
        for pid in others():
            tried("limited", lambda: syscall(302, pid, 0, struct.pack("QQ", 1, 1), None))
    """,
    "make it nice": """
        for pid in others():
            tried("slowed", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19) or 0)
        tried("slowed root", lambda: os.setpriority(os.PRIO_USER, 0, 19) or 0)
    """,
    "make it idle": """
        for pid in others():
            tried("slowed", lambda: os.sched_setscheduler(pid, 5, os.sched_param(0)) or 0)
            tried("slowed", lambda: syscall(251, 1, pid, 3 << 13))
    """,
    "bind it to one processor": """
        for pid in others():
            tried("bound", lambda: os.sched_setaffinity(pid, {0}) or 0)
    """,
    "make it the first to go without memory": """
        for pid in others():
            tried("chosen", lambda: os.write(os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY), b"1000"))
    """,
    "become somebody else": """
        for uid in (0, 65533):
            tried("became", lambda: os.setresuid(uid, uid, uid) or 0)
            tried("became", lambda: os.setgroups([uid]) or 0)
    """,
    "trace it from a user namespace": """
        tried("unshared", lambda: syscall(272, 0x10000000))
        tried("cloned", lambda: syscall(56, 0x10000000 | 17, 0, 0, 0, 0))
    """,
    "call in its place": """
        import socket
        for place in ("/.remit/channel", "/.remit"):
            tried("found", lambda: socket.socket(socket.AF_UNIX).connect(place) or 0)
            tried("listed", lambda: os.listdir(place) and 0)
            tried("made", lambda: os.open(f"{place}/x", os.O_CREAT | os.O_WRONLY))
    """,
}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def contained(private_docker, tree):
    def open_it(**changes):
        return DockerSandbox(SandboxSpec(kind="docker", workspace=tree, **changes))

    return open_it


def guest_as_the_host_sees_it(pid):
    folder = Path(f"/proc/{pid}")
    status = (folder / "status").read_text()
    return {
        "limits": (folder / "limits").read_text(),
        "oom": (folder / "oom_score_adj").read_text(),
        "nice": (folder / "stat").read_text().rpartition(")")[2].split()[16],
        "policy": os.sched_getscheduler(pid),
        "affinity": os.sched_getaffinity(pid),
        "tracer": status.partition("TracerPid:")[2].split()[0],
    }


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in ATTACKS.items()])
async def test_the_guest_is_out_of_a_commands_reach(contained, attack, body):
    async with contained() as sandbox:
        before = await anyio.to_thread.run_sync(guest_as_the_host_sees_it, sandbox.guest_pid)
        result = await sandbox.exec(attack(OTHERS + "if True:" + body))
        after = await anyio.to_thread.run_sync(guest_as_the_host_sees_it, sandbox.guest_pid)
        read = await sandbox.read_file("a.txt", max_bytes=100)
        later = await sandbox.exec(ExecRequest(argv=("sh", "-c", "echo still; ulimit -n; nice")))

    assert b"DONE" not in result.output
    assert b"Traceback" not in result.output or b"kill" in body.encode()
    assert after == before
    assert isinstance(read, FileContent)
    assert read.data == b"alpha\n"
    assert later.output == b"still\n1024\n0\n"


async def test_a_daemon_that_holds_the_output_ends_with_its_call(contained, attack):
    async with contained() as sandbox:
        with anyio.fail_after(10):
            await sandbox.exec(
                attack("""
                for _ in range(8):
                    if os.fork() == 0:
                        os.setsid()
                        while True: time.sleep(0.01)
            """)
            )
        left = await sandbox.exec(ExecRequest(argv=("sh", "-c", "cat /proc/[0-9]*/comm")))

    # The guest, the keeper of this command, the command, and the parked pair.
    assert left.output.split().count(b"python3") <= 4


async def test_a_chain_that_forks_and_exits_ends_with_its_call(contained, attack):
    chain = """
        for _ in range(4):
            if os.fork() == 0:
                os.setsid()
                while True:
                    if os.fork(): os._exit(0)
                    with open("ticks", "a") as ticks: ticks.write("x")
        time.sleep(0.3)
    """

    async with contained() as sandbox:
        with anyio.fail_after(20):
            await sandbox.exec(attack(chain))
        once = await sandbox.exec(ExecRequest(argv=("wc", "-c", "ticks")))
        await anyio.sleep(0.2)
        again = await sandbox.exec(ExecRequest(argv=("wc", "-c", "ticks")))

    assert once.output == again.output
    assert once.exit_code == 0


async def test_what_ends_with_one_call_leaves_another_alone(contained, attack):
    async with contained() as sandbox, anyio.create_task_group() as tasks:
        results = []

        async def victim():
            results.append(
                await sandbox.exec(ExecRequest(argv=("sh", "-c", "sleep 1.5 & wait; echo unharmed")))
            )

        tasks.start_soon(victim)
        await anyio.sleep(0.2)
        for _ in range(3):
            await sandbox.exec(ExecRequest(argv=("sh", "-c", "setsid sleep 60 & echo x")))

    assert [result.output for result in results] == [b"unharmed\n"]


async def test_a_fork_bomb_takes_nothing_from_the_host_and_the_next_call_works(contained):
    async with contained(limits=ResourceLimits(pids=64)) as sandbox:
        with anyio.fail_after(30):
            bomb = await sandbox.exec(
                ExecRequest(argv=("bash", "-c", ":(){ :|:& };:; sleep 5"), timeout_seconds=20)
            )
        after = await sandbox.exec(ExecRequest(argv=("echo", "alive")))

    assert bomb.limit in ("pids", None)
    assert after.output == b"alive\n"


async def test_the_guest_cannot_do_with_a_file_what_a_command_could_not(contained):
    async with contained() as sandbox:
        await sandbox.exec(
            ExecRequest(argv=("sh", "-c", "mkdir shut; echo x > shut/f; chmod 000 shut/f; chmod 500 shut"))
        )
        read = await sandbox.read_file("shut/f", max_bytes=10)
        write = await sandbox.write_file("shut/g", b"x")

    assert (read.kind, write.kind) == ("permission", "permission")


async def test_neither_the_engine_nor_a_secret_of_the_broker_is_inside(contained, attack, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "CANARY-7f3a9d")

    async with contained() as sandbox:
        result = await sandbox.exec(
            attack("""
            for folder, _, names in os.walk("/"):
                if folder.startswith(("/proc", "/sys", "/usr")): continue
                for name in names:
                    if name.endswith(".sock"): print("SOCKET", folder, name)
            for pid in os.listdir("/proc"):
                try: print(open(f"/proc/{pid}/environ").read())
                except OSError: pass
            print(open("/proc/self/mountinfo").read())
        """)
        )

    assert b"SOCKET" not in result.output
    assert b"CANARY" not in result.output
    assert b"docker.sock" not in result.output


async def test_every_rule_of_the_cis_benchmark_that_applies_holds(contained, private_docker):
    async with contained() as sandbox:
        words = ("inspect", sandbox.container_id)
        answer = await anyio.to_thread.run_sync(lambda: private_docker.ask(*words).stdout)
        states = {control.name: control.state for control in sandbox.controls}
    (seen,) = json.loads(answer)
    host = seen["HostConfig"]

    assert set(host["CapAdd"]) == {"KILL", "SETUID", "SETGID"}, "5.4"
    assert host["CapDrop"] == ["ALL"], "5.4"
    assert host["Privileged"] is False, "5.5"
    assert not [m for m in seen["Mounts"] if m["Source"] in ("/", "/etc", "/proc", "/sys", "/dev", "/usr")], (
        "5.6"
    )
    assert not seen["NetworkSettings"]["Ports"], "5.8, 5.9, 5.14"
    assert host["NetworkMode"] == "none", "5.10, 5.30"
    assert host["Memory"] == host["MemorySwap"] > 0, "5.11"
    assert host["NanoCpus"] > 0, "5.12"
    assert host["ReadonlyRootfs"] is True, "5.13"
    assert host["RestartPolicy"]["Name"] in ("no", ""), "5.15"
    assert (host["PidMode"], host["IpcMode"], host["UTSMode"]) == ("", "private", ""), "5.16, 5.17, 5.21"
    assert not host["Devices"], "5.18"
    assert host["Ulimits"], "5.19"
    assert {m["Propagation"] for m in seen["Mounts"]} <= {"", "rprivate"}, "5.20"
    assert any(o.startswith("seccomp={") for o in host["SecurityOpt"]), "5.22"
    assert "no-new-privileges:true" in host["SecurityOpt"], "5.26"
    assert host["PidsLimit"] > 0, "5.29"
    assert host["UsernsMode"] != "host", "5.31"
    assert not [m for m in seen["Mounts"] if m["Source"].endswith("docker.sock")], "5.32"
    assert host["LogConfig"]["Type"] == "none"
    assert "missing" not in states.values()
    assert states["seccomp"] == states["capabilities"] == states["memory"] == "observed"


async def test_what_a_file_tool_makes_belongs_to_the_commands_and_not_to_root(contained):
    async with contained() as sandbox:
        await sandbox.write_file("made", b"x")
        result = await sandbox.exec(
            ExecRequest(argv=("sh", "-c", "chmod 600 made && echo y >> made && stat -c %u made"))
        )
        uid = sandbox.identity.details["host_uid"]

    assert result.output.decode().split() == [uid]
    assert uid != "0"


async def test_a_keeper_serves_again_only_when_a_command_ended_by_itself_and_left_nothing(contained):
    keepers = ExecRequest(argv=("sh", "-c", "echo $PPID"))

    async with contained() as sandbox:
        first = await sandbox.exec(keepers)
        second = await sandbox.exec(keepers)
        await sandbox.exec(ExecRequest(argv=("sh", "-c", "setsid sleep 60 & echo x")))
        after_a_daemon = await sandbox.exec(keepers)
        await sandbox.exec(ExecRequest(argv=("sh", "-c", "kill -9 $$")))
        after_a_signal = await sandbox.exec(keepers)
        await sandbox.exec(ExecRequest(argv=("sleep", "60"), timeout_seconds=0.1))
        after_a_limit = await sandbox.exec(keepers)

    assert first.output == second.output
    assert len({second.output, after_a_daemon.output, after_a_signal.output, after_a_limit.output}) == 4


async def test_what_a_command_left_behind_neither_writes_into_the_next_one_nor_lives_with_it(
    contained, attack
):
    async with contained() as sandbox:
        await sandbox.exec(
            attack("""
            for _ in range(4):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork(): os._exit(0)
                    while True:
                        os.write(1, b"STALE")
                        open("alive", "a").write("x")
        """)
        )
        before = await sandbox.exec(ExecRequest(argv=("wc", "-c", "alive")))
        others = await sandbox.exec(
            ExecRequest(argv=("sh", "-c", "sleep 0.2; grep -l python3 /proc/[0-9]*/cmdline; id -u"))
        )
        after = await sandbox.exec(ExecRequest(argv=("wc", "-c", "alive")))

    assert b"STALE" not in before.output + others.output + after.output
    assert before.output == after.output


async def test_a_child_that_waits_is_root_and_out_of_reach_of_a_command(contained, attack):
    async with contained() as sandbox, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(sandbox.exec, ExecRequest(argv=("sleep", "0.3")))
        await anyio.sleep(0.6)
        result = await sandbox.exec(
            attack("""
            for name in os.listdir("/proc"):
                if name.isdigit() and int(name) != os.getpid():
                    try: uid = os.stat(f"/proc/{name}").st_uid
                    except OSError: continue
                    if uid != 0: print("REACHABLE", name)
                    for number in (19, 9):
                        try: os.kill(int(name), number)
                        except OSError: continue
                        print("SIGNALLED", name)
        """)
        )
        later = [await sandbox.exec(ExecRequest(argv=("echo", str(n)))) for n in range(5)]

    assert result.output == b""
    assert [answer.output for answer in later] == [b"%d\n" % n for n in range(5)]


async def test_a_descriptor_of_an_earlier_command_reaches_no_later_one(contained):
    async with contained() as sandbox:
        first = await sandbox.exec(ExecRequest(argv=("ls", "-l", "/proc/self/fd")))
        second = await sandbox.exec(ExecRequest(argv=("ls", "-l", "/proc/self/fd"), stdin=b"x"))

    pipes = [
        {word for word in answer.output.decode().split() if word.startswith("pipe:")}
        for answer in (first, second)
    ]
    # Output and errors are one pipe, the second command's input another; the directory itself is open too.
    assert [len(found) for found in pipes] == [1, 2]
    assert not pipes[0] & pipes[1]
    assert [answer.output.count(b" -> ") for answer in (first, second)] == [4, 4]


async def test_a_command_gets_the_usage_of_itself_and_not_of_earlier_ones(contained):
    busy = "x = bytearray(60_000_000); n = 0\nwhile n < 3_000_000: n += 1"

    async with contained() as sandbox:
        heavy = await sandbox.exec(ExecRequest(argv=("python3", "-c", busy)))
        light = await sandbox.exec(ExecRequest(argv=("true",)))

    assert heavy.cpu_seconds > light.cpu_seconds * 2
    assert heavy.peak_memory_bytes > 50_000_000 > light.peak_memory_bytes

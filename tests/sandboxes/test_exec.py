from __future__ import annotations

import hashlib
import os
import time

import anyio
import pytest

from sandboxes.base import ExecRequest, FileContent

pytestmark = pytest.mark.anyio

# When its init was started, in ticks, and its number: one of them differs between any two.
WHICH_NAMESPACE = "cut -d' ' -f22 /proc/1/stat; readlink /proc/self/ns/pid"


async def test_exit_code_and_output_of_a_command_are_its_own(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec(sh("echo out; echo err >&2; exit 7"))

    assert (result.exit_code, result.signal, result.limit) == (7, None, None)
    assert result.output == b"out\nerr\n"
    assert result.output_sha256 == hashlib.sha256(b"out\nerr\n").hexdigest()
    assert result.output_bytes == 8
    assert not result.truncated


async def test_a_signal_is_reported_as_a_signal(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec(sh("kill -TERM $$"))

    assert (result.exit_code, result.signal, result.limit) == (None, 15, None)


@pytest.mark.parametrize(
    ("argv", "code"),
    [(("no-such-program",), 127), (("/etc/passwd",), 126), (("./sub",), 126), (("./none/x",), 127)],
)
async def test_a_program_that_cannot_be_started_is_a_result(opened, argv, code):
    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=argv))
        again = await sandbox.exec(ExecRequest(argv=("true",)))

    assert result.exit_code == code
    assert argv[0].encode() in result.output
    assert again.exit_code == 0


@pytest.mark.parametrize("argv", [("a\0b",), ("true", "x\0y"), ("true", "\ud800"), ()])
async def test_a_nul_byte_in_the_command_line_is_a_result(opened, argv):
    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=argv))

    assert result.exit_code == 126


async def test_a_missing_working_directory_is_a_result(opened):
    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("true",), cwd="nowhere"))

    assert result.exit_code == 126
    assert b"nowhere" in result.output


async def test_command_runs_in_the_directory_it_asks_for(opened, sh):
    async with opened(mount="/testbed") as sandbox:
        result = await sandbox.exec(sh("pwd; cat b.txt", cwd="sub"))

    assert result.output == b"/testbed/sub\nbeta\n"


async def test_environment_is_what_was_given_and_nothing_is_carried_over(opened, sh, monkeypatch):
    monkeypatch.setenv("REMIT_CANARY", "leak")

    async with opened(environment={"DECLARED": "yes"}) as sandbox:
        await sandbox.exec(sh("export DECLARED=changed; export NEW=1"))
        result = await sandbox.exec(sh("env | sort", environment={"ONCE": "1"}))
        later = await sandbox.exec(ExecRequest(argv=("env",)))

    names = {line.split(b"=")[0] for line in result.output.splitlines()}
    assert names == {b"DECLARED", b"HOME", b"LANG", b"ONCE", b"PATH", b"PWD"}
    assert b"DECLARED=yes" in result.output
    assert b"ONCE" not in later.output


async def test_home_is_writable_and_python_is_found_by_both_names(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec(sh("touch ~/x && python -c 'print(1)' && python3 -c 'print(2)'"))

    assert result.output == b"1\n2\n"


async def test_stdin_of_any_bytes_arrives_exactly(opened):
    data = os.urandom(3 * 1024 * 1024) + b"\0\xff'\"$(`"

    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("sha256sum",), stdin=data))

    assert result.output.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_input_that_nobody_reads_does_not_hold_the_call(opened):
    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("true",), stdin=b"x" * (1 << 20)))

    assert result.exit_code == 0


async def test_a_long_argument_list_arrives(opened):
    words = ("x" * 100_000,) * 10

    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("sh", "-c", 'echo "$# ${#1}"', "sh", *words)))

    assert result.output == b"10 100000\n"


async def test_arguments_that_are_not_utf8_arrive_as_their_bytes(opened):
    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")

    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("printf", "%s", odd)))

    assert result.output == b"\xff\xfe"


async def test_long_output_keeps_head_and_tail_and_counts_all_of_it(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec(
            sh("printf HEAD; head -c 3000000 /dev/zero | tr '\\0' x; printf TAIL", max_output_bytes=1000)
        )

    whole = b"HEAD" + b"x" * 3_000_000 + b"TAIL"
    assert result.output == whole[:500] + whole[-500:]
    assert result.truncated
    assert result.output_bytes == len(whole)
    assert result.output_sha256 == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("keep", [0, 1, 7])
async def test_output_is_kept_to_the_byte(opened, keep):
    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("printf", "123456"), max_output_bytes=keep))

    assert len(result.output) == min(keep, 6)
    assert result.output_bytes == 6


async def test_commands_run_at_the_same_time(opened, sh):
    results = {}

    async with opened() as sandbox, anyio.create_task_group() as tasks:

        async def run(number):
            results[number] = await sandbox.exec(sh(f"sleep 0.3; echo {number}"))

        before = time.monotonic()
        for number in range(8):
            tasks.start_soon(run, number)

    assert {number: result.output for number, result in results.items()} == {
        number: f"{number}\n".encode() for number in range(8)
    }
    assert time.monotonic() - before < 8 * 0.3 + 5


async def test_a_cancelled_command_is_killed_and_the_sandbox_goes_on(opened, sh):
    async with opened() as sandbox:
        with anyio.move_on_after(0.2) as scope:
            await sandbox.exec(sh("trap '' TERM; while sleep 0.05; do date >> ticks; done"))
        first = await sandbox.read_file("ticks", max_bytes=100_000)
        await anyio.sleep(0.3)
        second = await sandbox.read_file("ticks", max_bytes=100_000)
        after = await sandbox.exec(sh("echo fine"))

    assert scope.cancelled_caught
    assert isinstance(first, FileContent)
    assert first == second
    assert after.output == b"fine\n"


async def test_the_last_command_ends_the_sandbox_with_a_status_the_host_saw(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec_last(sh("echo done; exit 3"))

    assert (result.exit_code, result.output) == (3, b"done\n")


async def test_the_last_command_may_end_by_a_signal(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec_last(sh("kill -9 $$"))

    assert result.signal == 9


async def test_the_last_command_may_end_by_a_limit(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec_last(sh("sleep 60", timeout_seconds=0.2))

    assert result.limit == "wall"


async def test_usage_is_reported(opened, sh):
    async with opened() as sandbox:
        result = await sandbox.exec(sh("head -c 2000000 /dev/zero > big; sleep 0.1"))

    assert 2_000_000 <= result.written_bytes < 3_000_000
    assert result.wall_seconds >= 0.1
    assert result.cpu_seconds > 0
    assert result.peak_memory_bytes > 100_000


async def test_a_namespace_serves_again_only_after_a_command_that_left_nothing(opened, sh):
    started = sh(WHICH_NAMESPACE)

    async with opened() as sandbox:
        first = await sandbox.exec(started)
        second = await sandbox.exec(started)
        await sandbox.exec(sh("setsid sleep 600 &"))
        after_leaving = await sandbox.exec(started)
        await sandbox.exec(sh("sleep 600", timeout_seconds=0.2))
        after_limit = await sandbox.exec(started)

    assert first.output == second.output
    assert len({second.output, after_leaving.output, after_limit.output}) == 3


async def test_a_writer_of_an_earlier_command_does_not_reach_the_output_of_a_later_one(opened, sh):
    hand_over = (
        "import os, socket, time\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind('/tmp/s'); listener.listen()\n"
        "open('/tmp/ready', 'w').close()\n"
        "stolen = socket.recv_fds(listener.accept()[0], 1, 1)[1][0]\n"
        "for _ in range(40):\n"
        "    os.write(stolen, b'FORGED') if os.path.exists('/tmp/write') else None\n"
        "    time.sleep(0.05)\n"
        "    if os.path.exists('/tmp/done'): break\n"
    )
    give = (
        "import os, socket, time\n"
        "while not os.path.exists('/tmp/ready'): time.sleep(0.01)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect('/tmp/s'); socket.send_fds(s, [b'x'], [1])\n"
        "time.sleep(0.1)\n"
    )

    async with opened() as sandbox, anyio.create_task_group() as group:
        group.start_soon(sandbox.exec, ExecRequest(argv=("python3", "-c", hand_over)))
        await sandbox.exec(ExecRequest(argv=("python3", "-c", give)))
        result = await sandbox.exec(sh("touch /tmp/write; sleep 0.3; echo own; touch /tmp/done"))

    assert result.output == b"own\n"


async def test_a_namespace_that_served_beside_another_command_does_not_serve_again(opened, sh):
    async with opened() as sandbox, anyio.create_task_group() as group:
        group.start_soon(sandbox.exec, sh("until [ -e /tmp/end ]; do sleep 0.05; done"))
        await anyio.wait_all_tasks_blocked()
        first = await sandbox.exec(sh(WHICH_NAMESPACE))
        second = await sandbox.exec(sh(f"{WHICH_NAMESPACE}; touch /tmp/end"))

    assert first.output != second.output


async def test_another_command_cannot_look_into_the_namespace_of_a_later_one(opened, sh):
    watch = (
        "import os, socket, time\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind('/tmp/s'); listener.listen()\n"
        "open('/tmp/ready', 'w').close()\n"
        "proc = socket.recv_fds(listener.accept()[0], 1, 1)[1][0]\n"
        "open('/tmp/given', 'w').close()\n"
        "seen = b''\n"
        "while not os.path.exists('/tmp/done'):\n"
        "    for name in os.listdir(proc) if os.path.exists('/tmp/later') else ():\n"
        "        try:\n"
        "            seen += open(os.open(name + '/cmdline', 0, dir_fd=proc), 'rb').read()\n"
        "        except OSError:\n"
        "            pass\n"
        "    time.sleep(0.02)\n"
        "print(b'SECRET' in seen)\n"
    )
    give = (
        "import os, socket, time\n"
        "while not os.path.exists('/tmp/ready'): time.sleep(0.01)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect('/tmp/s')\n"
        "socket.send_fds(s, [b'x'], [os.open('/proc', os.O_RDONLY)])\n"
        "while not os.path.exists('/tmp/given'): time.sleep(0.01)\n"
    )
    looked = []

    async def look(sandbox):
        looked.append(await sandbox.exec(ExecRequest(argv=("python3", "-c", watch))))

    async with opened() as sandbox, anyio.create_task_group() as group:
        group.start_soon(look, sandbox)
        await sandbox.exec(ExecRequest(argv=("python3", "-c", give)))
        await sandbox.exec(sh("touch /tmp/later; : SECRET; sleep 0.3; touch /tmp/done"))

    assert looked[0].output == b"False\n"

"""Checks of what commands see, do and leave. They need a POSIX shell and the usual tools inside."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import anyio
import anyio.to_thread

from sandboxes.base import ExecRequest, ExecResult, FileProblem, Sandbox
from sandboxes.conformance.suite import (
    MIB,
    SECRET,
    NotConforming,
    OpenSandbox,
    checks,
    done,
    expect,
    expect_true,
    fingerprint,
    problem,
    shell,
    spec,
)
from sandboxes.errors import SandboxError
from sandboxes.workspace.changes import changed_paths, read_changes

_OWN_VARIABLES = {"PATH", "HOME", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}
_SOON_SECONDS = 10.0


async def check_exit_codes_are_results(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Every exit status comes back as it is, and is no error."""
    async with open_sandbox(spec(workspace)) as sandbox:
        for code in (0, 1, 3, 126, 255):
            result = await sandbox.exec(shell(f"exit {code}"))
            expect(_ending(result), (code, None, None), f"exit {code}")


async def check_signals_are_results(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A command that is killed by a signal says which; one killed at once is no time-out."""
    async with open_sandbox(spec(workspace)) as sandbox:
        for signal in (15, 9):
            result = await sandbox.exec(shell(f"kill -{signal} $$"))
            expect(_ending(result), (None, signal, None), f"kill -{signal}")
        result = await sandbox.exec(shell("/bin/sh -c 'kill -15 $$'; exit $?"))
        expect(_ending(result), (143, None, None), "a shell that reports a signal")


async def check_programs_that_cannot_run_are_results(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A missing program is 127 and one that may not be executed 126, as in a shell."""
    async with open_sandbox(spec(workspace)) as sandbox:
        for program, code in (("no-such-program", 127), ("./missing", 127), ("./a.txt", 126), ("./sub", 126)):
            result = await sandbox.exec(ExecRequest(argv=(program,)))
            expect(_ending(result), (code, None, None), program)
        result = await sandbox.exec(ExecRequest(argv=("./run.sh",)))
        expect((result.exit_code, result.output), (0, b"ran\n"), "an executable of the workspace")


async def check_the_shell_is_bash_where_there_is_one(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """The shell that the sandbox names is there, and is bash if the sandbox has it."""
    async with open_sandbox(spec(workspace)) as sandbox:
        named = sandbox.identity.shell
        result = await sandbox.exec(ExecRequest(argv=(named, "-c", "test -x /bin/bash && echo bash")))
        bash = result.output == b"bash\n"
        expect((result.limit, named), (None, "/bin/bash" if bash else "/bin/sh"), "the shell")


async def check_stdin_is_given_byte_for_byte(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Binary input of a megabyte comes out of `cat` unchanged, and no input is an empty one."""
    data = bytes(range(256)) * 4096
    async with open_sandbox(spec(workspace)) as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("cat",), stdin=data, max_output_bytes=2 * MIB))
        expect_true(result.output == data, "stdin did not come out of cat unchanged")
        nothing = await sandbox.exec(ExecRequest(argv=("cat",), timeout_seconds=5))
        expect((_ending(nothing), nothing.output), ((0, None, None), b""), "cat without stdin")


async def check_arguments_are_given_byte_for_byte(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Nothing in an argument means anything, and a megabyte of them arrives."""
    odd = ("$(id)", "a b", "", "*", "'", '"', "\n", "-n", ";", "é")
    async with open_sandbox(spec(workspace)) as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("printf", "%s\\0", *odd)))
        expect(result.output, b"".join(word.encode() + b"\0" for word in odd), "odd arguments")
        many = ExecRequest(argv=("/bin/sh", "-c", "echo $# ${#1}", "sh", *["x" * 65536] * 16))
        expect((await sandbox.exec(many)).output, b"16 65536\n", "a megabyte of arguments")


async def check_output_is_merged_in_order(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Stdout and stderr come as one stream."""
    async with open_sandbox(spec(workspace)) as sandbox:
        result = await sandbox.exec(shell("echo one; echo two >&2; echo three"))
        expect(result.output, b"one\ntwo\nthree\n", "merged output")


async def check_long_output_keeps_head_and_tail(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """What is cut is marked; the true length and digest are of everything."""
    whole = b"".join(b"line %d\n" % number for number in range(20000))
    async with open_sandbox(spec(workspace)) as sandbox:
        script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        result = await sandbox.exec(shell(script, max_output_bytes=1000))
    expect(result.exit_code, 0, "a command with much output")
    expect((result.truncated, result.output_bytes), (True, len(whole)), "truncation")
    expect(result.output_sha256, hashlib.sha256(whole).hexdigest(), "digest of all output")
    expect_true(result.output.startswith(whole[:100]), "the head is kept")
    expect_true(result.output.endswith(whole[-100:]), "the tail is kept")
    expect_true(len(result.output) <= 1000, f"{len(result.output)} bytes were kept, more than asked for")


async def check_the_workspace_is_at_its_mount(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Commands start in the mount that the spec names, or in a directory below it."""
    async with open_sandbox(spec(workspace, mount="/testbed")) as sandbox:
        root = await sandbox.exec(shell("pwd; cat /testbed/a.txt"))
        expect(root.output, b"/testbed\nalpha\n", "the workspace's root")
        below = await sandbox.exec(ExecRequest(argv=("/bin/sh", "-c", "pwd; cat b.txt"), cwd="sub"))
        expect(below.output, b"/testbed/sub\nbeta\n", "a directory of the workspace")


async def check_the_environment_is_exact(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Commands get what the spec and the request say and nothing of the host's."""
    async with open_sandbox(spec(workspace, environment={"ONE": "1", "BOTH": "spec"})) as sandbox:
        request = ExecRequest(argv=("env", "-0"), environment={"TWO": "2 \n", "BOTH": "request"})
        output = (await sandbox.exec(request)).output
        first = await sandbox.exec(shell("tr '\\0' '\\n' < /proc/1/environ"))
    seen = dict(line.split("=", 1) for line in output.decode().split("\0") if line)
    expect(
        {name: seen.get(name) for name in ("ONE", "TWO", "BOTH")},
        {"ONE": "1", "TWO": "2 \n", "BOTH": "request"},
        "env",
    )
    expect(set(seen) - {"ONE", "TWO", "BOTH"} - _OWN_VARIABLES, set(), "variables that nobody gave")
    for name, value in os.environ.items():
        if len(value) > 8 and name not in _OWN_VARIABLES:
            expect_true(value.encode() not in first.output, f"{name} of the host is visible inside")


async def check_calls_do_not_share_state(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A variable or directory of one call is not there in the next."""
    async with open_sandbox(spec(workspace)) as sandbox:
        await sandbox.exec(shell("export LEFT=1; cd /; umask 0777"))
        result = await sandbox.exec(shell('echo "[$LEFT]"; cat a.txt; : > made; cat made'))
        expect(result.output, b"[]\nalpha\n", "the next call")


async def check_nothing_survives_a_call(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """What a command leaves in the background is dead when its call ends."""
    daemon = "setsid /bin/sh -c 'while :; do echo x >> ticks; sleep 0.05; done' >/dev/null 2>&1 &"
    async with open_sandbox(spec(workspace)) as sandbox:
        result = await sandbox.exec(shell(f"{daemon} sleep 0.3; echo started", timeout_seconds=10))
        expect(_ending(result), (0, None, None), "a command with a daemon")
        await _expect_still(sandbox)


async def check_a_daemon_that_holds_the_output_does_not_hold_the_call(
    open_sandbox: OpenSandbox, workspace: Path
) -> None:
    """The end of the command ends the call, whoever still has its stdout open."""
    async with open_sandbox(spec(workspace)) as sandbox:
        with anyio.fail_after(_SOON_SECONDS):
            result = await sandbox.exec(shell("sleep 60 & echo started", timeout_seconds=30))
        expect((_ending(result), result.output), ((0, None, None), b"started\n"), "a held output")


async def check_calls_run_at_the_same_time(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Calls in flight together do not wait for each other and do not mix their answers."""
    answers: dict[int, bytes] = {}

    async def call(sandbox: Sandbox, number: int) -> None:
        # Each waits for a file that another one makes: one after the other they would never end.
        wait = f": > flag{number}; until [ -e flag{(number + 1) % 4} ]; do sleep 0.02; done; echo {number}"
        answers[number] = (await sandbox.exec(shell(wait, timeout_seconds=20))).output

    async with open_sandbox(spec(workspace)) as sandbox, anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(call, sandbox, number)
    expect(answers, {number: b"%d\n" % number for number in range(4)}, "answers of calls in flight together")


async def check_closing_ends_calls_in_flight(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A call that is under way when the sandbox is closed fails at once, and so does every later one."""
    failed: list[bool] = []

    async def call(sandbox: Sandbox) -> None:
        failed.append(await _fails(sandbox))

    async with open_sandbox(spec(workspace)) as sandbox:
        with anyio.fail_after(_SOON_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, sandbox)
                await anyio.sleep(0.3)
                await sandbox.aclose()
        expect(failed, [True], "a call in flight at the close")
        expect_true(await _fails(sandbox), "a call after the close was answered")
        await sandbox.aclose()


async def check_the_last_command_ends_the_sandbox(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """`exec_last` gives the exit status, and nothing can be asked afterwards."""
    for script, ending in (("exit 7", (7, None, None)), ("exit 0", (0, None, None))):
        async with open_sandbox(spec(workspace)) as sandbox:
            result = await sandbox.exec_last(shell(script))
            expect(_ending(result), ending, script)
            expect_true(await _fails(sandbox), "a call after the last one was answered")


async def check_the_users_tree_is_untouched(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Whatever a command does to the workspace, the host's tree stays what it was."""
    before = await anyio.to_thread.run_sync(fingerprint, workspace)
    async with open_sandbox(spec(workspace)) as sandbox:
        await sandbox.exec(shell("echo more >> a.txt; rm -rf sub; chmod 700 empty; mkdir new; ln -sf x link"))
    expect(await anyio.to_thread.run_sync(fingerprint, workspace), before, "the user's tree")


async def check_changes_by_commands_are_in_the_layer(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """After the close the layer holds exactly what commands changed; names alone can be had before."""
    script = (
        "echo new > a.txt; rm sub/b.txt; mkdir made; : > made/file; chmod 700 run.sh; cat bytes > /dev/null"
    )
    wanted = ["a.txt", "made", "made/file", "run.sh", "sub/b.txt"]
    async with open_sandbox(spec(workspace)) as sandbox:
        await sandbox.exec(shell(script))
        live = await anyio.to_thread.run_sync(changed_paths, sandbox.layer)
    changes = await anyio.to_thread.run_sync(read_changes, sandbox.layer)
    expect(sorted(live), wanted, "names while it lives")
    expect([change.path for change in changes], wanted, "changes after the close")
    expect(
        [change.change for change in changes], ["modified", "added", "added", "modified", "deleted"], "kinds"
    )


async def check_hidden_and_kept_paths_hold_for_commands(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Hidden paths read as empty, read-only ones cannot be written, and neither counts as a change."""
    async with open_sandbox(spec(workspace, hidden=("hidden",), read_only=("kept",))) as sandbox:
        result = await sandbox.exec(
            shell(
                "ls -A hidden; cat hidden/secret; cat kept/file;"
                " echo x >> kept/file; rm -rf kept hidden; mv kept k"
            )
        )
        expect_true(b"hidden\n" not in result.output, "a hidden file can be read")
        expect_true(b"kept\n" in result.output, "a read-only file cannot be read")
    expect(
        await anyio.to_thread.run_sync(read_changes, sandbox.layer), (), "changes of hidden and kept paths"
    )


async def check_the_host_is_out_of_reach(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Files beside the workspace cannot be read, the system cannot be written, and there is no network."""
    secret = workspace.parent / "secret"
    async with open_sandbox(spec(workspace)) as sandbox:
        result = await sandbox.exec(shell(f"cat {secret} ../secret link-up /proc/1/root{secret}"))
        expect_true(SECRET.strip() not in result.output, "a file beside the workspace can be read")
        result = await sandbox.exec(
            shell("for d in / /usr /etc /bin; do : > $d/canary; done; ls -d /*/canary /canary")
        )
        expect_true(b"canary\n" not in result.output.replace(b"/canary'", b""), "the system can be written")
        interfaces = await sandbox.exec(shell("tail -n +3 /proc/net/dev | cut -d: -f1"))
        expect(interfaces.output.split(), [b"lo"], "network interfaces")
        missing = [
            control.name for control in sandbox.controls if control.required and control.state == "missing"
        ]
        expect(missing, [], "required controls that do not hold")
        expect_true(sandbox.controls, "no controls are reported")


async def check_special_files_are_answered_at_once(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A FIFO or a socket is neither read nor waited for."""
    async with open_sandbox(spec(workspace)) as sandbox:
        await sandbox.exec(shell("mkfifo pipe"))
        with anyio.fail_after(3):
            problem(await sandbox.read_file("pipe", max_bytes=10), "not_regular", "reading a FIFO")
            problem(await sandbox.write_file("pipe", b"x"), "not_regular", "writing a FIFO")
        listing = done(await sandbox.list_directory("."))
        expect([entry.kind for entry in listing.entries if entry.path == "pipe"], ["other"], "a listed FIFO")


async def check_unreadable_files_are_a_problem(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A file without permissions is refused or, by a guest that owns it, read; it is no failure."""
    async with open_sandbox(spec(workspace)) as sandbox:
        await sandbox.exec(shell("chmod 000 a.txt"))
        answer = await sandbox.read_file("a.txt", max_bytes=10)
        if isinstance(answer, FileProblem):
            problem(answer, "permission", "a file without permissions")


def _ending(result: ExecResult) -> tuple[int | None, int | None, str | None]:
    return result.exit_code, result.signal, result.limit


async def _expect_still(sandbox: Sandbox) -> None:
    still = "a=$(wc -c < ticks); sleep 0.5; b=$(wc -c < ticks); echo $a $b"
    counts = (await sandbox.exec(shell(still))).output.split()
    if len(counts) != 2 or counts[0] != counts[1] or counts[0] == b"0":
        raise NotConforming(f"a daemon outlives its call, or never lived: {counts}")


async def _fails(sandbox: Sandbox) -> bool:
    try:
        await sandbox.exec(shell("sleep 60"))
    except SandboxError:
        return True
    return False


COMMAND_CHECKS = checks(
    "commands",
    check_exit_codes_are_results,
    check_signals_are_results,
    check_programs_that_cannot_run_are_results,
    check_the_shell_is_bash_where_there_is_one,
    check_stdin_is_given_byte_for_byte,
    check_arguments_are_given_byte_for_byte,
    check_output_is_merged_in_order,
    check_long_output_keeps_head_and_tail,
    check_the_workspace_is_at_its_mount,
    check_the_environment_is_exact,
    check_calls_do_not_share_state,
    check_nothing_survives_a_call,
    check_a_daemon_that_holds_the_output_does_not_hold_the_call,
    check_calls_run_at_the_same_time,
    check_closing_ends_calls_in_flight,
    check_the_last_command_ends_the_sandbox,
    check_the_users_tree_is_untouched,
    check_changes_by_commands_are_in_the_layer,
    check_hidden_and_kept_paths_hold_for_commands,
    check_the_host_is_out_of_reach,
    check_special_files_are_answered_at_once,
    check_unreadable_files_are_a_problem,
)

"""The official MCP client against the real server, over real pipes, in both eras of the protocol."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from mcp import Client, MCPError

pytestmark = pytest.mark.anyio
MODES = pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])


@pytest.fixture
def anyio_backend():
    return "asyncio"


def outcome(result):
    (content,) = result.content
    assert json.loads(content.text) == result.structured_content
    return result.structured_content


def journal(task):
    paths = task.state.glob("runs/*/journal.jsonl")
    return [
        json.loads(line)
        for path in paths
        for line in path.read_text().splitlines(keepends=True)
        if "\n" in line
    ]


def decisions(task):
    return [
        (record["body"]["tool"], record["body"]["action"])
        for record in journal(task)
        if record["kind"] == "call.decided"
    ]


@MODES
async def test_only_tools_with_a_budget_are_listed_with_closed_schemas(task, mode):
    async with Client(task.server(), mode=mode) as client:
        listed = (await client.list_tools()).tools

    assert [tool.name for tool in listed] == ["read_file", "write_file", "terminal"]
    assert all(tool.input_schema["additionalProperties"] is False for tool in listed)
    assert all(tool.output_schema["type"] == "object" for tool in listed)
    assert [tool.annotations.read_only_hint for tool in listed] == [True, False, False]


@MODES
async def test_a_call_runs_in_the_sandbox_and_the_tree_stays_as_it_was(task, mode):
    async with Client(task.server(), mode=mode) as client:
        written = await client.call_tool("write_file", {"path": "a.txt", "content": "hello\n"})
        seen = await client.call_tool("terminal", {"command": "cat a.txt; pwd"})

    assert not written.is_error
    assert outcome(written)["remaining"]["tools"] == {"read_file": 4, "write_file": 1, "terminal": 3}
    assert outcome(seen)["output"] == "hello\n/workspace\n"
    assert not (task.folder / "work/a.txt").exists()


@MODES
async def test_a_denied_call_is_a_tool_error_with_codes_and_what_is_left(task, mode):
    async with Client(task.server(), mode=mode) as client:
        denied = await client.call_tool("read_file", {"path": "secret.txt"})
        unlisted = await client.call_tool(
            "patch", {"mode": "replace", "path": "a.txt", "old_string": "a", "new_string": "b"}
        )

    assert denied.is_error
    assert outcome(denied)["status"] == "denied"
    assert [reason["code"] for reason in outcome(denied)["reasons"]] == ["scope.deny"]
    assert [reason["code"] for reason in outcome(unlisted)["reasons"]] == ["budget.tools.patch"]


async def test_bad_arguments_are_a_tool_error_and_nothing_is_charged(task):
    async with Client(task.server()) as client:
        result = await client.call_tool("read_file", {"path": 7, "bogus": 1})

    assert result.is_error
    assert outcome(result)["reasons"][0]["code"] == "arguments.invalid"
    assert outcome(result)["remaining"]["tools"]["read_file"] == 4


@MODES
async def test_an_unknown_tool_is_a_protocol_error_and_a_denied_call_in_the_journal(task, mode):
    async with Client(task.server(), mode=mode) as client:
        with pytest.raises(MCPError) as raised:
            await client.call_tool("Bash", {"command": "id"})

    assert raised.value.code == -32602
    assert decisions(task) == [("Bash", "deny")]


@pytest.mark.parametrize(
    ("mode", "key"),
    [("2026-07-28", "claudecode/toolUseId"), ("legacy", "callId"), ("auto", "dev.remit/callId")],
)
async def test_a_reissued_call_gets_its_stored_answer_and_is_not_charged_twice(task, mode, key):
    call = ("terminal", {"command": "date +%N"})
    async with Client(task.server(), mode=mode) as client:
        first = await client.call_tool(*call, meta={key: "toolu_1"})
        again = await client.call_tool(*call, meta={key: "toolu_1"})
        other = await client.call_tool(*call, meta={key: "toolu_2"})

    assert outcome(again)["output"] == outcome(first)["output"]
    assert outcome(again)["call"] == outcome(first)["call"]
    assert outcome(again)["remaining"]["tools"]["terminal"] == 2
    assert outcome(other)["remaining"]["tools"]["terminal"] == 1


async def test_an_id_that_is_issued_again_with_other_arguments_runs_nothing(task):
    async with Client(task.server()) as client:
        await client.call_tool("terminal", {"command": "true"}, meta={"callId": "one"})
        other = await client.call_tool("terminal", {"command": "touch b.txt"}, meta={"callId": "one"})

    assert other.is_error
    assert outcome(other)["remaining"]["tools"]["terminal"] == 2


@MODES
async def test_a_restarted_server_goes_on_with_the_budget_and_the_changes(task, mode):
    async with Client(task.server(), mode=mode) as client:
        await client.call_tool("write_file", {"path": "a.txt", "content": "hello\n"}, meta={"callId": "w"})
    async with Client(task.server(), mode=mode) as client:
        again = await client.call_tool(
            "write_file", {"path": "a.txt", "content": "hello\n"}, meta={"callId": "w"}
        )
        seen = await client.call_tool("read_file", {"path": "a.txt"})
        last = await client.call_tool("write_file", {"path": "b.txt", "content": "b\n"})
        none = await client.call_tool("write_file", {"path": "c.txt", "content": "c\n"})

    assert outcome(again)["remaining"]["tools"]["write_file"] == 1
    assert "hello" in outcome(seen)["output"]
    assert not last.is_error
    assert [reason["code"] for reason in outcome(none)["reasons"]] == ["budget.tools.write_file"]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_killed_server_refunds_nothing(task, mode):
    for left in (1, 0):
        server = await Killable.start(task, mode)
        result = await server.call("write_file", path=f"{left}.txt", content="x")
        server.kill()
        assert result["remaining"]["tools"]["write_file"] == left

    async with Client(task.server(), mode=mode) as client:
        denied = await client.call_tool("write_file", {"path": "c.txt", "content": "x"})

    assert [reason["code"] for reason in outcome(denied)["reasons"]] == ["budget.tools.write_file"]
    assert [record["kind"] for record in journal(task)].count("run.resumed") == 2


async def test_a_server_killed_in_the_middle_of_a_call_leaves_it_charged_and_the_run_unproven(task):
    server = await Killable.start(task, "2026-07-28")
    server.send("terminal", command="echo hello > a.txt; sleep 60")
    with anyio.fail_after(20):
        while ("terminal", "allow") not in decisions(task):  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.02)
    server.kill()

    async with Client(task.server()) as client:
        result = await client.call_tool("terminal", {"command": "true"})

    assert outcome(result)["remaining"]["tools"]["terminal"] == 1
    finished = await anyio.run_process(
        [sys.executable, "-m", "executor.cli", "finish", "latest", "--json"],
        env=task.environment(),
        check=False,
    )
    assert json.loads(finished.stdout)["verdict"]["outcome"] != "pass"
    assert "run.interrupted" in finished.stdout.decode()


async def test_a_second_server_on_the_same_run_is_refused(task):
    async with Client(task.server()) as client:
        await client.list_tools()
        second = await anyio.run_process(task.argv(), env=task.environment(), check=False)

    assert second.returncode == 5
    assert second.stdout == b""
    assert b"error: " in second.stderr
    assert b"hint: " in second.stderr


async def test_a_suspended_run_is_judged_by_finish_and_applied_by_apply(task):
    async with Client(task.server()) as client:
        await client.call_tool("write_file", {"path": "a.txt", "content": "hello\n"})

    for command in ("finish", "apply"):
        await anyio.run_process(
            [sys.executable, "-m", "executor.cli", command, "latest"], env=task.environment()
        )

    assert (task.folder / "work/a.txt").read_text() == "hello\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_suspends_the_run_in_good_order(task, number):
    server = await Killable.start(task, "2026-07-28")
    await server.call("write_file", path="a.txt", content="hello\n")
    server.process.send_signal(number)

    code, _, talk = await server.leave()

    assert code == 0
    assert b"suspended" in talk
    assert journal(task)[-1]["body"]["state"] == "suspended"


@pytest.mark.parametrize("how", ["process", "group"])
async def test_a_client_that_kills_what_it_started_loses_nothing(task, how):
    server = await Killable.start(task, "2026-07-28")
    await server.call("write_file", path="a.txt", content="hello\n")
    if how == "process":
        server.process.kill()
    else:
        os.killpg(server.process.pid, signal.SIGKILL)
    await server.leave()

    async with Client(task.server()) as client:
        seen = await client.call_tool("read_file", {"path": "a.txt"})

    assert "hello" in outcome(seen)["output"]
    assert outcome(seen)["remaining"]["tools"]["write_file"] == 1


async def test_finish_on_exit_judges_when_the_client_leaves_and_says_it_on_stderr(task):
    server = await Killable.start(task, "2026-07-28", "--finish-on-exit")
    await server.call("write_file", path="a.txt", content="hello\n")

    code, rest, talk = await server.leave()

    assert (code, rest) == (0, b"")
    assert b"verdict: pass" in talk


async def test_a_judged_task_is_not_begun_again_by_a_client_that_restarts_its_server(task):
    server = await Killable.start(task, "2026-07-28", "--finish-on-exit")
    await server.call("write_file", path="a.txt", content="hello\n")
    await server.leave()

    code, _, talk = await (await Killable.start(task, "2026-07-28", "--finish-on-exit")).leave()

    assert code == 2
    assert b"has been judged" in talk


async def test_a_remit_that_was_widened_meanwhile_is_refused(task):
    async with Client(task.server()) as client:
        await client.list_tools()
    task.remit.write_text(task.remit.read_text().replace("write_file: 2", "write_file: 200"))

    ended = await anyio.run_process(task.argv(), env=task.environment(), check=False)

    assert ended.returncode == 2
    assert b"under another remit" in ended.stderr


async def test_the_same_remit_over_another_workspace_is_another_run(task):
    async with Client(task.server()) as client:
        await client.call_tool("write_file", {"path": "a.txt", "content": "x"})
    first = journal(task)[0]["run"]
    elsewhere = replace(task, folder=task.folder.with_name("elsewhere"))
    shutil.copytree(task.folder, elsewhere.folder)

    async with Client(elsewhere.server()) as client:
        result = await client.call_tool("write_file", {"path": "a.txt", "content": "x"})
    refused = await anyio.run_process(elsewhere.argv("--resume", first), env=task.environment(), check=False)

    assert outcome(result)["remaining"]["tools"]["write_file"] == 1
    assert refused.returncode == 5
    assert b"worked on" in refused.stderr


async def test_another_task_id_has_a_budget_of_its_own(task):
    async with Client(task.server("--task", "first")) as client:
        await client.call_tool("write_file", {"path": "a.txt", "content": "x"})
    async with Client(task.server("--task", "second")) as client:
        result = await client.call_tool("write_file", {"path": "a.txt", "content": "x"})

    assert outcome(result)["remaining"]["tools"]["write_file"] == 1


async def test_sixty_four_calls_at_once_run_as_often_as_the_budget_says(task):
    results = []

    async with Client(task.server()) as client:

        async def one(number):
            results.append(
                outcome(await client.call_tool("write_file", {"path": f"{number}.txt", "content": "x"}))
            )

        async with anyio.create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(one, number)

    assert sorted(result["status"] for result in results) == ["denied"] * 62 + ["ok"] * 2


def start(task, *options):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(task.argv(*options), env=task.environment(), start_new_session=True, **pipes)


class Killable:
    """A client of few words whose server can be killed, in either era of the protocol."""

    def __init__(self, process, mode):
        self.process = process
        self.mode = mode
        self.number = 0

    @classmethod
    async def start(cls, task, mode, *options):
        server = cls(start(task, *options), mode)
        if mode == "legacy":
            info = {"name": "test", "version": "1"}
            offer = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
            assert (await server.request("initialize", offer))["protocolVersion"] == "2025-06-18"
            server.write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return server

    async def call(self, tool, **arguments):
        return (await self.request("tools/call", self.params(tool, arguments)))["structuredContent"]

    def send(self, tool, **arguments):
        self.write(
            {"jsonrpc": "2.0", "id": 99, "method": "tools/call", "params": self.params(tool, arguments)}
        )

    def params(self, tool, arguments):
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        }
        return {"name": tool, "arguments": arguments, **({"_meta": meta} if self.mode != "legacy" else {})}

    async def request(self, method, params):
        self.number += 1
        self.write({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
        with anyio.fail_after(30):
            line = await anyio.to_thread.run_sync(self.process.stdout.readline, abandon_on_cancel=True)
        return json.loads(line)["result"]

    def write(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    async def leave(self):
        rest, talk = await anyio.to_thread.run_sync(self.process.communicate)
        return self.process.returncode, rest, talk

    def kill(self):
        """Kill the server itself, and not only the guard that a client sees."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

"""Real agent programs in front of the real server, with a model that follows a script.

They are not installed by ``make test``. To run these, put them somewhere and say where:

    npm install --prefix DIR @anthropic-ai/claude-code@2.1.197 @openai/codex@0.169.0
    REMIT_AGENTS=DIR/node_modules/.bin scripts/test tests/clients/test_real_agents.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.provider import provider

CODEX_CONFIG = """
model = "scripted"
model_provider = "scripted"
approval_policy = "never"
sandbox_mode = "read-only"
web_search = "disabled"
check_for_update_on_startup = false
[model_providers.scripted]
name = "scripted"
base_url = "{url}/v1"
env_key = "SCRIPTED_KEY"
wire_api = "responses"
[analytics]
enabled = false
[features]
shell_tool = false
unified_exec = false
view_image = false
multi_agent = false
goals = false
apps = false
plugins = false
remote_plugin = false
tool_suggest = false
skill_search = false
hooks = false
image_generation = false
browser_use = false
computer_use = false
[mcp_servers.remit]
command = {command}
args = {arguments}
required = true
startup_timeout_sec = 30
default_tools_approval_mode = "approve"
"""
AGENTS = Path(os.environ.get("REMIT_AGENTS", "/nonexistent"))


def agent(name):
    path = AGENTS / name
    if not path.exists():
        pytest.skip(f"{name} is not in $REMIT_AGENTS")
    return str(path)


def decisions(task):
    (path,) = task.state.glob("runs/*/journal.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        (body["tool"], body["action"], bool(body["client_call"]))
        for body in (record["body"] for record in records if record["kind"] == "call.decided")
    ]


def finish(task):
    argv = [sys.executable, "-m", "executor.cli", "finish", "latest", "--json"]
    ended = subprocess.run(argv, env=task.environment(), capture_output=True, timeout=60, check=False)
    return json.loads(ended.stdout)["verdict"]["outcome"]


def test_claude_code_writes_through_the_broker_and_has_no_other_hands(task):
    claude = agent("claude")
    command, *arguments = task.argv("--state-dir", str(task.state))
    settings = {"mcpServers": {"remit": {"type": "stdio", "command": command, "args": arguments}}}
    (task.folder / "mcp.json").write_text(json.dumps(settings))
    script = [
        {"name": "mcp__remit__write_file", "arguments": {"path": "a.txt", "content": "hello\n"}},
        {"name": "Bash", "arguments": {"command": "id > escape.txt", "description": "x"}},
        {"name": "mcp__remit__read_file", "arguments": {"path": "secret.txt"}},
    ]

    with provider(script) as model:
        ended = subprocess.run(
            [
                claude, "-p", "go", "--output-format", "stream-json", "--verbose",
                "--model", "claude-sonnet-4-5", "--tools", "",
                "--mcp-config", str(task.folder / "mcp.json"), "--strict-mcp-config",
                "--allowedTools", "mcp__remit__write_file,mcp__remit__read_file,mcp__remit__terminal",
            ],
            cwd=task.folder,
            env={
                **task.environment(),
                "ANTHROPIC_BASE_URL": model.url,
                "ANTHROPIC_API_KEY": "none",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "MCP_CONNECTION_NONBLOCKING": "false",
                "DISABLE_AUTOUPDATER": "1",
                "IS_SANDBOX": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
            check=False,
        )  # fmt: skip

    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    offered = {tool["name"] for request in model.asked for tool in request.get("tools", [])}
    assert offered == {"mcp__remit__read_file", "mcp__remit__write_file", "mcp__remit__terminal"}
    assert decisions(task) == [("write_file", "allow", True), ("read_file", "deny", True)]
    assert not list(task.folder.rglob("escape.txt"))
    assert not (task.folder / "work/a.txt").exists()
    assert finish(task) == "mixed"


def test_codex_writes_through_the_broker_and_has_no_shell(task):
    codex = agent("codex")
    command, *arguments = task.argv("--state-dir", str(task.state))
    ours = {"namespace": "mcp__remit"}
    script = [
        {**ours, "name": "write_file", "arguments": {"path": "a.txt", "content": "hello\n"}},
        {"name": "exec_command", "arguments": {"cmd": "id > escape.txt"}},
        {**ours, "name": "read_file", "arguments": {"path": "a.txt"}},
    ]

    with provider(script) as model:
        home = task.folder / "codex"
        home.mkdir()
        (home / "config.toml").write_text(
            CODEX_CONFIG.format(url=model.url, command=json.dumps(command), arguments=json.dumps(arguments))
        )
        ended = subprocess.run(
            [codex, "exec", "--json", "--skip-git-repo-check", "go"],
            cwd=task.folder,
            env={**task.environment(), "CODEX_HOME": str(home), "SCRIPTED_KEY": "none"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
            check=False,
        )

    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert decisions(task) == [("write_file", "allow", True), ("read_file", "allow", True)]
    assert not list(task.folder.rglob("escape.txt"))
    assert finish(task) == "pass"

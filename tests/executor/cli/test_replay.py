"""``remit replay``, ``remit demo`` and ``remit doctor`` as a user runs them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_replay_ends_with_the_exit_code_of_its_verdict_and_leaves_the_tree_alone(project):
    ended = project("replay", project.remit, project.recording)

    assert ended.code == 3
    assert ended.err == ""
    assert "\x1b" not in ended.out
    assert [path.name for path in project.work.iterdir()] == ["secret.txt"]


def test_a_replay_as_json_holds_calls_verdict_and_where_the_evidence_is(project):
    report = project("replay", project.remit, project.recording, "--json").json()

    assert [call["status"] for call in report["calls"]] == ["denied", "ok", "ok", "denied"]
    assert report["calls"][0]["codes"] == ["scope.deny"]
    assert report["verdict"]["outcome"] == "mixed"
    assert report["exit_code"] == 3
    assert report["checks"][0]["status"] == "passed"
    assert {change["path"] for change in report["changes"]} == {"a.txt", "odd\x1b[31m.txt"}
    assert json.loads(Path(report["receipt"]).read_text())["payload"]


def test_a_dry_run_decides_and_makes_no_run(project):
    ended = project("replay", project.remit, project.recording, "--dry-run", "--json")

    assert ended.code == 3
    assert [call["action"] for call in ended.json()["calls"]] == ["deny", "allow", "allow", "deny"]
    assert not project.state.exists()
    assert "not within bounds" in project("replay", project.remit, project.recording, "--dry-run").out


def test_a_map_makes_a_recorded_tool_one_of_ours(project):
    ended = project(
        "replay", project.remit, project.recording, "--dry-run", "--json", "--map", "bash=terminal"
    )

    assert ended.json()["calls"][3]["action"] == "allow"


@pytest.mark.parametrize(
    "options", [("--map", "bash"), ("--map", "bash=fly"), ("--profile", "nobody"), ("--format", "x")]
)
def test_a_map_or_profile_that_says_nothing_is_a_usage_error(project, options):
    assert project("replay", project.remit, project.recording, "--dry-run", *options).code == 2


def test_a_file_that_is_no_recording_is_a_usage_error_that_names_it(project):
    (project.folder / "calls.jsonl").write_text("no json\n")

    ended = project("replay", project.remit, project.recording)

    assert ended.code == 2
    assert "calls.jsonl" in ended.err


def test_a_failed_check_is_shown_with_what_it_printed(project):
    text = (project.folder / "remit.yaml").read_text()
    (project.folder / "remit.yaml").write_text(
        text.replace("[grep, -qx, hello, a.txt]", '[sh, -c, "echo no\x1b[2J; exit 3"]'.replace("\x1b", "\\e"))
    )

    ended = project("replay", project.remit, project.recording)

    assert ended.code == 1
    assert "  | no\\x1b[2J" in ended.out


def test_a_remit_that_cannot_be_enforced_starts_nothing(project):
    text = (project.folder / "remit.yaml").read_text()
    (project.folder / "remit.yaml").write_text(text + "sandbox: {kind: docker}\n")

    ended = project("replay", project.remit, project.recording)

    assert ended.code == 5
    assert ended.err.startswith("error: ")
    assert "\n\nhint: " in ended.err
    assert all(
        (run["allowed"], run["verdict"]) == (0, None) for run in project("runs", "--json").json()["runs"]
    )


def test_an_interrupted_replay_goes_on_where_it_was_and_runs_nothing_twice(project):
    first = {"tool": "write_file", "arguments": {"path": "a.txt", "content": "hello\n"}}
    (project.folder / "first.jsonl").write_text(json.dumps(first) + "\n")
    code = (
        "import sys, anyio, pathlib\n"
        "from executor.run import open_run\n"
        "from executor.cli.load import load_remit\n"
        "from executor.cli.replay import *\n"
        "async def main(remit, recording):\n"
        "    found = load_recording(pathlib.Path(recording))\n"
        "    async with open_run(load_remit(pathlib.Path(remit)), base=pathlib.Path(remit).parent) as run:\n"
        "        await replay(run, found, tool_map_for(found.format))\n"
        "anyio.run(main, *sys.argv[1:])\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, project.remit, str(project.folder / "first.jsonl")], check=True
    )

    ended = project(
        "replay",
        project.remit,
        str(project.folder / "first.jsonl"),
        "--resume",
        project.run_directory.name,
        "--json",
    )

    assert ended.code == 0, ended.err
    assert [call["repeated"] for call in ended.json()["calls"]] == [True]
    assert [change["path"] for change in ended.json()["changes"]] == ["a.txt"]


def test_progress_is_shown_on_a_terminal_and_only_there(project):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "executor.cli", "replay", project.remit, project.recording]

    ended = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, timeout=60, env=dict(os.environ))

    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert ended.returncode == 3
    assert b"4/4 denied" in shown
    assert b"4/4" not in ended.stdout


def test_doctor_says_what_this_host_can_enforce(project):
    ended = project("doctor", "--json")
    report = ended.json()

    assert ended.code == (0 if report["usable"] else 5)
    assert {backend["backend"] for backend in report["backends"]} >= {"bubblewrap"}
    assert all(backend["usable"] or backend["reason"] for backend in report["backends"])
    assert project("doctor").code == ended.code


def test_the_demo_runs_from_an_installed_wheel(tmp_path):
    root = Path(__file__).parents[3]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(site),
        "REMIT_STATE_DIR": str(tmp_path / "state"),
    }

    ended = subprocess.run(
        [sys.executable, "-m", "executor.cli", "demo", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=100,
    )

    assert ended.returncode == 0, ended.stderr + ended.stdout
    report = json.loads(ended.stdout)
    assert len(report["runs"]) == 6
    assert all(run["verified"] for run in report["runs"])
    assert str(site) not in {run["journal"] for run in report["runs"]}

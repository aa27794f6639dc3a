"""``remit check`` says what is wrong, what is allowed, and whether this host can hold it."""

from __future__ import annotations

import json

import pytest

from budgets.remit import json_schema, parse


def test_a_valid_remit_is_said_in_words(project):
    ended = project("check", project.remit)

    assert ended.code == 0
    assert "read_file 2, write_file 3, terminal 1; no other" in ended.out
    assert "secret.txt: by no tool, terminal included" in ended.out
    assert ended.out.rstrip().endswith("this host can enforce it")


def test_a_sandbox_for_each_call_is_said_and_what_becomes_of_growth(project):
    text = (project.folder / "remit.yaml").read_text()
    refusing = text.replace("scope:\n", "sandbox: {lifetime: call}\nscope:\n  growth: refuse\n")
    (project.folder / "remit.yaml").write_text(refusing)

    ended = project("check", project.remit)

    assert ended.code == 0, ended.err
    assert "a fresh one for each call" in ended.out
    assert "a change beyond `writes` is refused, with all else that the call changed" in ended.out


def test_the_words_come_as_json_too(project):
    report = project("check", project.remit, "--json").json()

    assert report["valid"] is report["enforceable"] is True
    assert report["effective"]["budget"]["tools"] == {"read_file": 2, "write_file": 3, "terminal": 1}
    assert {row["topic"] for row in report["authority"]} >= {"tools", "reads", "writes", "sandbox"}


def test_every_problem_of_an_invalid_remit_is_named_with_its_line(project):
    (project.folder / "remit.yaml").write_text(
        "version: 2\ntask: {id: x}\nscope: {workspce: .}\nbudget: {}\n"
    )

    ended = project("check", project.remit)
    problems = project("check", project.remit, "--json").json()["problems"]

    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert {problem["line"] for problem in problems} >= {1, 3}
    assert any("workspace" in (problem["hint"] or "") for problem in problems)


def test_a_remit_that_cannot_be_enforced_here_is_told_so_with_a_hint(project):
    text = (project.folder / "remit.yaml").read_text()
    (project.folder / "remit.yaml").write_text(text + "sandbox: {kind: docker}\n")

    ended = project("check", project.remit)
    report = project("check", project.remit, "--json").json()

    assert ended.code == 5
    assert "hint: " in ended.err
    assert report["enforceable"] is False
    assert report["obstacle"]["reason"]


@pytest.mark.parametrize(
    ("call", "code", "action", "reasons"),
    [
        ({"tool": "read_file", "arguments": {"path": "b.txt"}}, 0, "allow", []),
        ({"tool": "read_file", "arguments": {"path": "../b.txt"}}, 3, "deny", ["scope.outside"]),
        (
            {"tool": "patch", "arguments": {"mode": "replace"}},
            3,
            "deny",
            ["arguments.invalid", "budget.tools.patch"],
        ),
        ({"tool": "fly"}, 3, "deny", ["tool.unknown"]),
    ],
)
def test_one_decision_can_be_asked_for(project, call, code, action, reasons):
    ended = project("check", project.remit, "--json", "--call", json.dumps(call))

    assert ended.code == code
    assert ended.json()["action"] == action
    assert [reason["code"] for reason in ended.json()["reasons"]] == reasons


def test_a_tool_that_needs_approval_is_ask(project):
    text = (project.folder / "remit.yaml").read_text()
    (project.folder / "remit.yaml").write_text(text + "approve: [terminal]\n")

    ended = project(
        "check", project.remit, "--call", '{"tool": "terminal", "arguments": {"command": "true"}}'
    )

    assert (ended.code, ended.out.splitlines()[0]) == (4, "ask")


@pytest.mark.parametrize(
    "call", ["{", "[]", '{"name": "x"}', '{"tool": "x", "arguments": []}', '{"tool": "x", "id": 1}']
)
def test_what_is_no_call_is_a_usage_error(project, call):
    assert project("check", project.remit, "--call", call).code == 2


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (("checks:\n  - run: [grep, -qx, hello, a.txt]\n", ""), "there are no checks"),
        (('write: ["a.txt", "odd*"]', "write: []"), "write_file has calls, and scope.write is empty"),
        (("workspace: ./work", "workspace: ./elsewhere"), "is not a directory"),
        (("violations: 20", "calls: 100"), "budget.calls is 100"),
    ],
)
def test_what_is_valid_and_probably_not_meant_is_remarked(project, change, remark):
    text = (project.folder / "remit.yaml").read_text()
    (project.folder / "remit.yaml").write_text(text.replace(*change))

    assert f"remark: {''}" in project("check", project.remit).out
    assert any(remark in each for each in project("check", project.remit, "--json").json()["remarks"])


def test_a_file_that_is_no_text_is_a_usage_error(project):
    (project.folder / "remit.yaml").write_bytes(b"\xff\xfe")

    assert project("check", project.remit).code == 2


@pytest.mark.parametrize("place", ["nope/x.yaml", "file/x.yaml", "x" * 300])
def test_init_where_nothing_can_be_written_is_wrong_usage(project, tmp_path, place):
    (tmp_path / "file").touch()

    ended = project("init", str(tmp_path / place))

    assert ended.code == 2
    assert "cannot be written" in ended.err
    assert "hint: " in ended.err


def test_init_writes_a_remit_that_is_valid_and_never_overwrites(project, monkeypatch):
    monkeypatch.chdir(project.folder)

    first = project("init", "fresh.yaml")
    text = (project.folder / "fresh.yaml").read_text()
    second = project("init", "fresh.yaml")

    assert (first.code, first.out) == (0, "fresh.yaml\n")
    assert parse(text, source="fresh.yaml").budget.tools["terminal"] == 5
    assert second.code == 2
    assert (project.folder / "fresh.yaml").read_text() == text


def test_schema_is_the_one_that_the_parser_gives(project):
    assert project("schema").json() == json_schema()

"""The table of commands is what the commands say of themselves, and every ending has its exit code."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import click
import pytest

from executor.cli import app as program
from executor.cli.errors import CommandError, InvocationError


@pytest.mark.parametrize("name", program.COMMANDS)
def test_the_summary_in_the_table_is_the_commands_own(name):
    entry = program.COMMANDS[name]

    command = importlib.import_module(entry.module).command

    assert command.name == name
    assert (command.help or "").splitlines()[0] == entry.summary


def test_help_imports_no_command_and_no_heavy_module():
    code = (
        "import sys\n"
        "from executor.cli.app import run\n"
        "run(['--help'])\n"
        "heavy = {'pydantic', 'mcp', 'anyio', 'yaml', 'cryptography', 'jsonschema', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stderr.strip() == "[]"


def raising(error):
    @click.command()
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvocationError("no such thing", hint="try another"), 2),
        (CommandError("lost", hint="look"), 5),
        (CommandError("differs", exit_code=1), 1),
        (ExceptionGroup("group", [CommandError("lost", hint="look")]), 5),
        (FileNotFoundError(2, "No such file or directory", "/nowhere"), 5),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("a fault of ours"), 5),
    ],
)
def test_an_exception_never_exits_with_the_code_of_a_verdict(monkeypatch, capsys, error, code):
    monkeypatch.setattr(program, "app", raising(error))

    assert program.run([]) == code
    assert "error: " in capsys.readouterr().err


def test_an_error_is_followed_by_an_empty_line_and_its_hint(monkeypatch, capsys):
    monkeypatch.setattr(program, "app", raising(CommandError("the door is \x1b[8mshut", hint="knock")))

    program.run([])

    assert capsys.readouterr().err == "error: the door is \\x1b[8mshut\n\nhint: knock\n"


def test_an_unknown_command_is_a_usage_error(capsys):
    assert program.run(["bogus"]) == 2
    assert "hint: see `remit --help`" in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_the_program_quietly():
    reading, writing = os.pipe()
    os.close(reading)

    ended = subprocess.run(
        [sys.executable, "-m", "executor.cli", "schema"],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )

    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")

"""The program ``remit``: the table of its commands, and the place where an exception becomes an exit code."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import click

from executor.cli.errors import (
    EXIT_INTERRUPTED,
    EXIT_MACHINERY,
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    show_error,
)
from executor.cli.text import ReaderGone
from executor.integrity import PACKAGES, ForeignPackageError, check_installation


class Entry(NamedTuple):
    """Where a command lives, and what ``remit --help`` says of it without importing it."""

    module: str
    summary: str


COMMANDS = {
    "init": Entry("executor.cli.init", "Write a commented remit.yaml to start from."),
    "check": Entry("executor.cli.check", "Lint a remit and say in words what it allows."),
    "replay": Entry("executor.cli.replay", "Run the recorded tool calls of a model under a remit."),
    "mcp": Entry("executor.cli.mcp", "Serve a remit's tools to an agent over MCP on stdio."),
    "finish": Entry("executor.cli.finish", "Judge a suspended run and write its receipt."),
    "runs": Entry("executor.cli.runs", "List the runs in the state directory."),
    "log": Entry("executor.cli.log", "Show or verify the journal of a run."),
    "receipt": Entry("executor.cli.receipt", "Show or verify the receipt of a run."),
    "diff": Entry("executor.cli.diff", "Show what a run changed, as a unified diff."),
    "apply": Entry("executor.cli.apply", "Put a run's changes into the workspace they were made over."),
    "discard": Entry("executor.cli.discard", "Throw a run's changes away; its journal and receipt stay."),
    "clean": Entry("executor.cli.clean", "List, and with --yes remove, old runs and leftovers."),
    "doctor": Entry("executor.cli.doctor", "Say what this host can enforce, and what it lacks."),
    "demo": Entry("executor.cli.demo", "Run the packaged examples end to end."),
    "schema": Entry("executor.cli.schema", "Print the JSON Schema of a remit, for editors."),
}

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Name the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the one command that was asked for."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = importlib.import_module(entry.module).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.command is a {type(command).__name__}, not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the summaries from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="remit", prog_name="remit")
def app() -> None:
    """Run a model's tool calls inside a budget, a scope and a disposable container, and get a receipt.

    stdout is data, stderr is talk. Exit codes: 0 pass or done, 1 fail, 2 usage, 3 mixed, 4 unproven,
    5 the machinery failed.
    """


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit with its code; nothing that is raised becomes the exit code of a verdict."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        check_installation()
        code = app.main(args=argv, prog_name="remit", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as raised:  # noqa: BLE001 - a traceback would exit with 1: "fail"
        return _exit_code_of(_only(raised))
    return code if isinstance(code, int) else EXIT_OK


def _only(error: BaseException) -> BaseException:
    """Take a lone exception out of the groups that task groups wrap around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _exit_code_of(error: BaseException) -> int:
    match error:
        case SystemExit(code=code):
            return code if isinstance(code, int) else EXIT_MACHINERY
        case click.exceptions.Exit(exit_code=code):
            return code
        case ReaderGone() | BrokenPipeError():
            return _reader_went_away()
        case KeyboardInterrupt() | click.Abort():
            show_error("interrupted")
            return EXIT_INTERRUPTED
        case click.UsageError():
            where = error.ctx.command_path if error.ctx else "remit"
            show_error(error.format_message(), hint=f"see `{where} --help`")
            return EXIT_USAGE
        case click.ClickException():
            show_error(error.format_message())
            return EXIT_USAGE
        case CommandError():
            show_error(str(error), hint=error.hint)
            return error.exit_code
        case ForeignPackageError():
            show_error(str(error), hint=error.hint)
            return EXIT_MACHINERY
        case _ if _is_ours(error):
            show_error(str(error), hint=getattr(error, "hint", None))
            return EXIT_MACHINERY
        case OSError(filename=filename, strerror=reason) if filename is not None:
            show_error(f"{filename}: {reason}")
            return EXIT_MACHINERY
    traceback.print_exception(error)
    hint = "this is a fault of remit itself; the lines above say where"
    show_error(f"internal error: {type(error).__name__}: {error}", hint=hint)
    return EXIT_MACHINERY


def _is_ours(error: BaseException) -> bool:
    """Whether the exception belongs to one of the trees that say what, where and the value seen."""
    package = type(error).__module__.split(".")[0]
    return isinstance(error, Exception) and package in PACKAGES


def _reader_went_away() -> int:
    # The interpreter flushes stdout once more when it ends, and would complain about the same pipe.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13

"""What ends a command early, and how it is told: ``error: …``, an empty line, ``hint: …``, all on stderr."""

from __future__ import annotations

import sys

from executor.cli.text import visible

EXIT_OK = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_MIXED = 3
EXIT_UNPROVEN = 4
EXIT_MACHINERY = 5
EXIT_INTERRUPTED = 130


class CommandError(Exception):
    """A command that cannot go on: a sentence, a remedy if there is one, and the exit code."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = EXIT_MACHINERY) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code


class InvocationError(CommandError):
    """What was asked for makes no sense: exit code 2."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, exit_code=EXIT_USAGE)


def show_error(message: str, *, hint: str | None = None) -> None:
    """Write one error and its remedy to stderr, with control characters made visible."""
    sys.stderr.write(f"error: {visible(message)}\n")
    if hint:
        sys.stderr.write(f"\nhint: {visible(hint)}\n")
    sys.stderr.flush()

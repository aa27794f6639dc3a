"""Options and arguments that several commands share, and what they resolve to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def state_dir_option(function: Function) -> Function:
    """Add ``--state-dir``: where runs, journals and the signing key are kept."""
    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="REMIT_STATE_DIR",
        help="Where runs and the key are kept; by default $XDG_STATE_HOME/remit or ~/.local/state/remit.",
    )(function)


def json_option(function: Function) -> Function:
    """Add ``--json``: data on stdout as one JSON document."""
    option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
    return option(function)


def remit_argument(function: Function) -> Function:
    """Add the positional REMIT, a file."""
    kind = click.Path(path_type=Path, dir_okay=False, exists=True)
    return click.argument("remit_path", metavar="REMIT", type=kind)(function)


def run_argument(function: Function) -> Function:
    """Add the positional RUN to read from: an exact id, ``latest`` (if left out), or a path."""
    return click.argument("run", metavar="[RUN]", default="latest")(function)


def chosen_run_argument(function: Function) -> Function:
    """Add the positional RUN to do something with: an exact id, or ``latest`` said explicitly."""
    return click.argument("run_id", metavar="RUN")(function)


def durability_option(function: Function) -> Function:
    """Add ``--durability``: what a written record outlives."""
    return click.option(
        "--durability",
        type=click.Choice(["process", "disk"]),
        default="process",
        show_default=True,
        help="What a journal record outlives before a call runs: a killed process, or a power cut.",
    )(function)


def key_option(function: Function) -> Function:
    """Add ``--key``: the public key that evidence is held against."""
    return click.option(
        "--key",
        metavar="KEY",
        help="Verifier key, or a file with one; by default the state directory's own for its own runs.",
    )(function)

"""``remit init``: a commented remit to start from."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from executor.cli.errors import InvocationError
from executor.cli.text import talk, write

_WRONG_PLACE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=Path("remit.yaml"))
def command(path: Path) -> None:
    """Write a commented remit.yaml to start from.

    PATH is where to write it, by default remit.yaml in the working directory. An existing file is never
    overwritten.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise InvocationError(
            f"{path}: is there already; nothing was written", hint="name another file: remit init other.yaml"
        ) from None
    except OSError as error:
        if error.errno not in _WRONG_PLACE:
            raise
        raise InvocationError(
            f"{path}: cannot be written: {error.strerror}",
            hint="name a file in a directory that is there and is yours: remit init remit.yaml",
        ) from error
    write(str(path))
    talk(f"next: edit it, then `remit check {path}`")


TEMPLATE = """\
# What one task may do. `remit check` says in words what this allows; docs/remit.md explains every key.
version: 1
task: {id: my-task, class: general}

# Who must have answered, when a model is in play; the verdict is "unproven" without evidence of it.
# route: {provider: anthropic, model: claude-sonnet-4-5, fallback: forbid}

sandbox:
  kind: bubblewrap          # no engine needed; no network inside
  memory: 512MiB
  pids: 128
  disk: 256MiB              # what the run may write, all in all
  command_timeout: 2m       # longest single command

scope:
  workspace: .              # your tree, relative to this file; never written during a run
  mount: /workspace         # its name inside the sandbox
  read: ["**"]
  write: ["src/**"]         # by segment: * stays within one folder, ** does not
  deny: [".env", "**/.env", "**/*.pem"]   # neither read nor written, by any tool
  protect: default          # .git, editor and agent settings, shell start files
  growth: record            # a change beyond `write` is recorded; `refuse` drops it (lifetime: call)

budget:
  tools: {list_files: 10, read_file: 20, search_files: 10, patch: 10, write_file: 5, terminal: 5}
  calls: 50                 # a tool that is not named above gets none
  wall_time: 15m
  output: 256KiB            # what the model may be shown, all in all
  violations: 5             # the run is stopped at the fifth

# Run in a fresh sandbox over the result; their exit status decides, not what the model says.
# checks:
#   - run: [python3, -m, pytest, -q]

commit: never               # on_pass | always | never: when changes go into your tree by themselves
"""

"""``remit schema``: the JSON Schema of a remit."""

from __future__ import annotations

import click

from budgets.remit import json_schema
from executor.cli.text import write_json


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of a remit, for editors.

    Save it and name it in the first line of a remit:
    `# yaml-language-server: $schema=./remit.schema.json`.
    """
    write_json(json_schema())

"""Nothing that a user can meet or write is undocumented."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest
import yaml

from budgets.reasons import DOCUMENT, REGISTRY
from budgets.remit import json_schema, parse
from executor.cli.app import app
from executor.tools.registry import TOOLS
from tests.docs.blocks import ROOT, Block, anchors, blocks, documents

WHOLE_REMIT = """
version: 1
task: {id: fragment, class: documentation}
scope: {workspace: ./workspace, write: [a.txt]}
budget: {tools: {write_file: 1}}
"""


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_every_reason_code_has_a_heading_of_its_own() -> None:
    page, headings = (ROOT / DOCUMENT).read_text(encoding="utf-8"), anchors(ROOT / DOCUMENT)

    assert [code for code, entry in REGISTRY.items() if entry.anchor not in headings] == []
    assert [code for code in REGISTRY if f"`{code}`" not in page] == []


def test_every_command_and_option_is_in_the_command_reference() -> None:
    page = _page("cli.md")
    missing = [f"{name} {option}" for name, option in _options() if f"`{option}" not in _section(page, name)]

    assert missing == []


def test_every_key_of_a_remit_is_in_its_reference() -> None:
    page = _page("remit.md")
    missing = [key for key in sorted(_keys(json_schema())) if f"`{key}`" not in page]

    assert missing == []


def test_every_tool_is_in_the_remit_reference() -> None:
    page = _page("remit.md")

    assert [name for name in TOOLS if f"`{name}`" not in page] == []


def test_every_exit_code_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert [code for code in range(6) if f"| {code} |" not in readme] == []


def _in(language: str) -> list[Block]:
    return [block for path in documents() for block in blocks(path) if block.language == language]


@pytest.mark.parametrize("block", _in("yaml"), ids=lambda block: block.where)
def test_remit_in_the_documentation_parses(block: Block) -> None:
    if block.mark("not a remit") is not None:
        yaml.safe_load(block.text)
        return
    text = block.text
    if block.mark("part of a remit") is not None:
        text = yaml.safe_dump({**yaml.safe_load(WHOLE_REMIT), **yaml.safe_load(block.text)})

    parse(text, source=block.where)


@pytest.mark.parametrize("block", _in("json"), ids=lambda block: block.where)
def test_json_in_the_documentation_parses(block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


def _options() -> Iterator[tuple[str, str]]:
    """Yield each command with each of its options' long names; a command without options yields its name."""
    waiting: list[tuple[str, click.Command]] = [("remit", app)]
    while waiting:
        name, command = waiting.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                assert found is not None
                waiting.append((f"{name} {child}", found))
        yield (name, name)
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                yield (name, max(parameter.opts, key=len))


def _section(page: str, command: str) -> str:
    """Return the text under a command's heading, with what is said once for all commands."""
    common = page.split("\n## ")[0]
    parts = [part for part in page.split("\n#") if part.lstrip("# ").startswith(f"`{command}")]
    return "\n".join([common, *(f"# {part}" for part in parts)])


def _keys(schema: object) -> set[str]:
    """Collect the names of all properties in a JSON Schema."""
    if isinstance(schema, list):
        return set().union(*map(_keys, schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema.get("properties", {})) if isinstance(schema.get("properties"), dict) else set()
    return own.union(*map(_keys, schema.values()))

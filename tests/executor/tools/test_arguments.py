"""What the tools accept is what their schemas say, and close to what real agents send."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.reasons import Reason
from executor.tools.registry import TOOLS

HERMES = Path(__file__).parents[4] / "shared" / "fixtures" / "agents" / "hermes-tool-schemas-0.19.0.json"

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 3000),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from(["replace", "patch", "content", "files", "count", "files_only"]),
    st.lists(st.text(max_size=3), max_size=2),
)


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_a_schema_is_closed_and_is_a_schema(name):
    schema = TOOLS[name].input_schema

    jsonschema.Draft202012Validator.check_schema(schema)

    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("name", sorted(TOOLS))
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_what_a_schema_refuses_is_refused(name, data):
    schema = TOOLS[name].input_schema
    names = [*schema["properties"], "surplus"]
    arguments = data.draw(st.dictionaries(st.sampled_from(names), values, max_size=6))
    # Some agents send null for what they leave out.
    meant = {key: value for key, value in arguments.items() if value is not None or key in schema["required"]}

    understood = TOOLS[name].parse(arguments)

    if not jsonschema.Draft202012Validator(schema).is_valid(meant) and "surplus" not in arguments:
        assert isinstance(understood, Reason)
        assert understood.code == "arguments.invalid"


@pytest.mark.skipif(not HERMES.exists(), reason="the agents' schemas are not beside the repository")
@pytest.mark.parametrize("name", ["read_file", "write_file", "patch", "search_files", "terminal"])
def test_every_argument_that_hermes_knows_is_known(name):
    theirs = json.loads(HERMES.read_text())[name]["schema"]["parameters"]
    ours = TOOLS[name].input_schema

    assert set(theirs["properties"]) <= set(ours["properties"])
    assert set(ours["required"]) <= {*theirs["required"], "path"}
    for argument, theirs_schema in theirs["properties"].items():
        assert ours["properties"][argument]["type"] == theirs_schema["type"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": "ls", "background": True},
        {"command": "ls", "pty": True},
        {"command": "ls", "notify_on_complete": True},
        {"command": "ls", "watch_patterns": ["x"]},
        {"command": "ls", "timeout": 601},
        {"command": "ls", "timeout": 0},
        {"command": ""},
        {"command": "a\0b"},
        {"command": "x" * 200_000},
        {"command": 5},
        {},
    ],
)
def test_what_terminal_cannot_do_is_refused(arguments):
    understood = TOOLS["terminal"].parse(arguments)

    assert isinstance(understood, Reason)
    assert understood.code == "arguments.invalid"


def test_what_an_agent_leaves_at_its_default_is_accepted():
    understood = TOOLS["terminal"].parse(
        {
            "command": "ls",
            "background": False,
            "pty": False,
            "notify_on_complete": False,
            "watch_patterns": [],
            "workdir": None,
            "timeout": 20.0,
        }
    )

    assert not isinstance(understood, Reason)


def test_all_that_is_wrong_is_named_at_once():
    understood = TOOLS["write_file"].parse({"path": 3, "nonsense": 1})

    assert isinstance(understood, Reason)
    assert all(word in understood.detail for word in ("path", "nonsense", "content"))


def test_half_a_surrogate_pair_is_no_text_for_a_file():
    understood = TOOLS["write_file"].parse({"path": "a", "content": "\ud800"})

    assert isinstance(understood, Reason)

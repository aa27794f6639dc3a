"""What a model is told of its task before it calls anything."""

from __future__ import annotations

from executor.adapters.mcp_server import instructions


def test_a_model_is_told_what_outlives_a_call_and_what_costs_a_command_its_changes(remit):
    fresh = remit(sandbox={"lifetime": "call"}, scope={"write": ["src/**"], "growth": "refuse"})
    without_terminal = remit(scope={"growth": "refuse"}, budget={"tools": {"read_file": 1}})

    assert "Nothing but the workspace outlives a call" in instructions(fresh)
    assert "more than src/** loses all of its changes" in instructions(fresh)
    assert "outlives" not in instructions(remit())
    assert "loses" not in instructions(without_terminal)

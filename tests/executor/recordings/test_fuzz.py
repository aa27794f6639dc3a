"""Whatever a file holds, a parser answers with a recording or with RecordingInvalid."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.recordings import FORMATS, RecordingInvalid, load_recording
from executor.recordings.tool_map import MappedCall, Unmapped, tool_map_for

FIXTURES = Path(__file__).parents[2] / "fixtures" / "recordings"
# Words that the parsers look for, so that random structures get past their first look.
WORDS = """
    role type content messages tool_calls function name arguments
    id model assistant user tool system tool_use tool_result
    input tool_use_id message sessionId uuid payload response_item function_call
    custom_tool_call local_shell_call action command call_id output info model_stats
    extra actions sessions session_model_usage api_call_count first_seen task billing_provider
    subtype init trajectory_format mini-swe-agent-1 turn_context session_meta text custom
    function_call_output Bash bash Edit MultiEdit edits Grep apply_patch
    shell terminal timeout workdir limit offset
""".split()  # noqa: SIM905 - a list of this length reads worse
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=24,
)
quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(data: bytes, format_name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        path.write_bytes(data)
        try:
            recording = load_recording(path, format_name)
        except RecordingInvalid as error:
            str(error).encode()
            return
    tool_map = tool_map_for(recording.format)
    for call in recording.calls:
        call.tool.encode()
        call.raw_arguments.encode()
        mapped = tool_map.map(call)
        assert isinstance(mapped, (MappedCall, Unmapped))
        json.dumps(dict(mapped.arguments), allow_nan=False).encode()


@quick
@given(data=st.binary(max_size=200), format_name=st.sampled_from(["auto", *FORMATS]))
def test_bytes(data, format_name):
    read(data, format_name)


@quick
@given(value=values, format_name=st.sampled_from(["auto", *FORMATS]))
def test_documents(value, format_name):
    read(json.dumps(value, indent=1).encode(), format_name)


@quick
@given(lines=st.lists(values, max_size=6), format_name=st.sampled_from(["auto", *FORMATS]))
def test_lines(lines, format_name):
    read("\n".join(json.dumps(line) for line in lines).encode(), format_name)


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir()))
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_recordings_with_one_value_replaced(name, data):
    text = (FIXTURES / name).read_text()
    listed = name.endswith(".jsonl")
    document = [json.loads(line) for line in text.splitlines()] if listed else json.loads(text)
    holder, key = data.draw(st.sampled_from(list(_places(document))))
    holder[key] = data.draw(values)

    changed = "\n".join(map(json.dumps, document)) if listed else json.dumps(document, indent=1)

    read(changed.encode(), data.draw(st.sampled_from(["auto", *FORMATS])))


@pytest.mark.parametrize("format_name", ["auto", *FORMATS])
@pytest.mark.parametrize("opening", ["[", '{"messages":', '{"tool":"a","arguments":'])
def test_nesting_without_end_is_refused(format_name, opening):
    depth = 50_000
    closing = "]" if opening == "[" else "}"

    read((opening * depth + closing * depth).encode(), format_name)
    read((opening * depth).encode(), format_name)


def test_calls_nested_just_below_the_parser_limit_are_not_kept():
    deep = '{"a":' * 900 + "1" + "}" * 900

    read(f'{{"tool": "terminal", "arguments": {deep}}}'.encode(), "auto")


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)

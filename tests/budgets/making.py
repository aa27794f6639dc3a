"""Remits, calls and ledgers for the tests, and strategies that make many."""

from __future__ import annotations

from hypothesis import strategies as st

from budgets.budget import Budget
from budgets.call import Effects, PathUse, ToolCall
from budgets.contract import Remit
from budgets.toolname import TOOLS

MINIMAL = """\
version: 1
task: {id: t}
scope: {workspace: .}
"""


def make_remit(*, scope=None, **sections) -> Remit:
    value = {
        "version": 1,
        "task": {"id": "t"},
        "scope": {"workspace": ".", **(scope or {})},
        **sections,
    }
    return Remit.model_validate(value, by_alias=True, by_name=False)


def make_call(tool="read_file", call_id="c-1") -> ToolCall:
    return ToolCall(id=call_id, tool=tool, arguments={})


def reads(*paths: str) -> Effects:
    return Effects(paths=tuple(PathUse(path=path, access="read") for path in paths))


def writes(*paths: str, written_bytes: int = 0) -> Effects:
    return Effects(
        paths=tuple(PathUse(path=path, access="write") for path in paths), written_bytes=written_bytes
    )


names = st.sampled_from(["a", "b", "ab", ".git", ".env", "src", "é", "x y", "[a]", "secret", "\udcff"])
relative_paths = st.lists(names, min_size=1, max_size=5).map("/".join)
glob_segments = st.one_of(
    st.sampled_from(
        ["a", "b", "ab", ".git", ".env", "src", "secret", "*", "**", "?", "a*", "*b", "[ab]", "[!a]*", ".*"]
    ),
    st.text(alphabet="ab*?.", min_size=1, max_size=4).filter(
        lambda text: "**" not in text and set(text) != {"."}
    ),
)
globs = st.lists(glob_segments, min_size=1, max_size=4).map("/".join)
glob_lists = st.lists(globs, max_size=3, unique=True)
tools = st.sampled_from(TOOLS)
counts = st.integers(min_value=0, max_value=4)


@st.composite
def budgets(draw) -> Budget:
    tool_counts = draw(st.dictionaries(tools, counts, max_size=4))
    group_tools = draw(st.lists(st.lists(tools, min_size=1, max_size=3, unique=True), max_size=2))
    return Budget(
        tools=tool_counts,
        groups={
            f"g{at}": {"tools": list(names), "calls": draw(counts)} for at, names in enumerate(group_tools)
        },
        calls=draw(st.none() | counts),
        wall_time_seconds=draw(st.integers(min_value=1, max_value=10)),
        output_bytes=draw(st.integers(min_value=0, max_value=50)),
        written_bytes=draw(st.integers(min_value=0, max_value=50)),
        violations=draw(st.integers(min_value=1, max_value=3)),
    )


@st.composite
def remits(draw) -> Remit:
    return make_remit(
        scope={
            "read": draw(glob_lists),
            "write": draw(glob_lists),
            "deny": draw(glob_lists),
            "protect": draw(st.sampled_from(["default", [], ["**/.env"], ["default", "secret/*"]])),
        },
        budget=draw(budgets()),
        approve=draw(st.lists(tools, max_size=1)),
    )


effects = st.builds(
    Effects,
    paths=st.lists(
        st.builds(PathUse, path=relative_paths, access=st.sampled_from(["read", "write"])), max_size=2
    ).map(tuple),
    written_bytes=st.integers(min_value=0, max_value=60),
)

from __future__ import annotations

import pytest

from executor.audit.errors import JournalDamaged
from executor.audit.query import records, violations
from executor.audit.reader import read_records
from tests.executor.audit.making import append_story, decided, open_journal


@pytest.fixture
def path(tmp_path):
    with open_journal(tmp_path) as journal:
        append_story(journal)
        journal.append(
            "violation", {"code": "growth.beyond_scope", "detail": "b", "severity": "high", "path": "b"}
        )
        journal.seal("finished")
    return tmp_path / "journal.jsonl"


def test_violations_are_listed_with_the_call_that_they_came_from(path):
    denied, growth = violations(path)

    assert (denied.code, denied.call, denied.tool, denied.preview) == (
        "budget.calls",
        "c-3",
        "terminal",
        "command=true",
    )
    assert (growth.code, growth.severity, growth.call, growth.tool) == (
        "growth.beyond_scope",
        "high",
        None,
        None,
    )
    assert denied.to_json()["seq"] == denied.seq


def test_records_are_found_by_kind_call_and_tool(path):
    assert [record.kind for record in records(path, call="c-1")] == ["call.decided", "call.ended"]
    assert len(list(records(path, kind="call.ended", tool="terminal"))) == 3
    assert list(records(path, tool="read_file")) == []
    assert len(list(records(path))) == len(list(read_records(path)))


def test_an_unfinished_last_line_is_left_out(path):
    whole = len(list(read_records(path)))
    with path.open("ab") as file:
        file.write(b'{"half')

    assert len(list(read_records(path))) == whole


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b'{"body":{"a":1.5}}'])
def test_a_line_that_is_no_record_is_named(path, line):
    with path.open("ab") as file:
        file.write(line + b"\n")

    with pytest.raises(JournalDamaged, match=r"journal.jsonl:\d+"):
        list(read_records(path))


def test_a_call_s_preview_is_as_it_was_also_when_it_was_escaped(tmp_path):
    with open_journal(tmp_path) as journal:
        body = decided(journal, "c-0", action="deny")
        journal.append("call.decided", {**body, "reasons": [{"code": "x", "detail": "\udcff"}]})
        journal.append("violation", {"code": "x", "detail": "\udcff", "call": "c-0"})

    (row,) = violations(tmp_path / "journal.jsonl")

    assert row.detail == "\udcff"
    assert row.preview == "command=true"

"""A file is read within bounds, and what cannot be read is said with file, line, what was seen and a hint."""

from __future__ import annotations

import os

import pytest

from executor.recordings import RecordingInvalid, load_recording, source

CALL = '{"tool": "terminal", "arguments": {"command": "true"}}'


def refusal(path):
    with pytest.raises(RecordingInvalid) as refused:
        load_recording(path)
    return refused.value


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(f"{CALL}\n\n{CALL[:20]}\n{CALL}\n")

    error = refusal(path)

    assert error.where == "line 3"
    assert str(path) in str(error)
    assert CALL[:12] in str(error)
    assert error.hint


def test_a_file_that_was_cut_off_is_named_by_its_last_line(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(f"{CALL}\n{CALL}\n{CALL[:-5]}")

    assert refusal(path).where == "line 3"


def test_a_broken_document_is_named_by_the_line(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('[\n {"role": "user"},\n {"role": }\n]\n')

    assert refusal(path).where == "line 3"


@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"hello\n", b"\x00\x01\x02", b"7\n", b'"text"\n', b"\xff\xfe{"]
)
def test_what_is_no_recording_is_refused(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_bytes(content)

    assert refusal(path).hint


@pytest.mark.parametrize(
    "content", ["{}", "[]", "[[]]", '{"a": 1}\n{"a": 2}\n', '{"messages": []}', "[null]"]
)
def test_json_of_no_known_format_is_refused(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_text(content)

    assert "known formats" in refusal(path).hint


def test_a_byte_order_mark_is_no_reason_to_refuse(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{CALL}\n{CALL}\n".encode())

    assert len(load_recording(path).calls) == 2


def test_one_line_is_one_call(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(CALL)

    assert len(load_recording(path).calls) == 1


def test_a_line_longer_than_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 100)
    path = tmp_path / "r.jsonl"
    path.write_text(f"{CALL}\n" + CALL.replace("true", "t" * 100) + "\n")

    assert refusal(path).where == "line 2"


def test_a_document_larger_than_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_DOCUMENT_BYTES", 50)
    path = tmp_path / "r.json"
    path.write_text('[\n{"role": "user", "content": "' + "x" * 100 + '"}\n]')

    assert "document" in str(refusal(path))


def test_a_file_larger_than_the_bound_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "r.jsonl"
    path.touch()
    os.truncate(path, source.MAX_FILE_BYTES + 1)

    assert "more than" in str(refusal(path))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    assert refusal(fifo).hint
    assert refusal(tmp_path)
    assert refusal(tmp_path / "missing")
    assert refusal(tmp_path / "a\0b")


def test_control_characters_of_a_file_do_not_reach_the_message(tmp_path):
    path = tmp_path / "r\x1b[31m.jsonl"
    path.write_text(f'{CALL}\n{{"tool\x1b[2J": 1}}\n')

    assert "\x1b" not in str(refusal(path))

"""read_file, write_file and list_files through a broker."""

from __future__ import annotations

import hashlib

import pytest

pytestmark = pytest.mark.anyio


async def test_lines_are_numbered_and_the_file_is_described(place):
    place.put("a.txt", "one\ntwo\n")

    async with place.run() as run:
        outcome = await run.call("read_file", {"path": "a.txt"})

    assert outcome.output == "1|one\n2|two\n"
    assert outcome.result == {
        "total_lines": 2,
        "file_size": 8,
        "truncated": False,
        "is_binary": False,
        "is_image": False,
    }
    assert outcome.named_result()["content"] == outcome.output


async def test_a_page_says_where_the_next_one_starts(place):
    place.put("a.txt", "".join(f"line {number}\n" for number in range(1, 11)))

    async with place.run() as run:
        first = await run.call("read_file", {"path": "a.txt", "offset": 4, "limit": 2})
        last = await run.call("read_file", {"path": "a.txt", "offset": 9, "limit": 5})
        beyond = await run.call("read_file", {"path": "a.txt", "offset": 99})

    assert first.output == "4|line 4\n5|line 5\n"
    assert first.result["next_offset"] == 6
    assert last.output == "9|line 9\n10|line 10\n"
    assert not last.result["truncated"]
    assert beyond.output == ""
    assert beyond.result["hint"] == "the file has 10 lines"


async def test_an_empty_file_is_read(place):
    place.put("a.txt")

    async with place.run() as run:
        outcome = await run.call("read_file", {"path": "a.txt"})

    assert (outcome.status, outcome.output, outcome.result["total_lines"]) == ("ok", "", 0)


async def test_what_is_left_of_the_output_budget_cuts_at_a_line(place, remit):
    place.put("a.txt", "x" * 30 + "\n" + "y" * 30 + "\n")

    async with place.run(remit(budget={"output": 40})) as run:
        cut = await run.call("read_file", {"path": "a.txt"})

    assert cut.output == "1|" + "x" * 30 + "\n"
    assert cut.truncated
    assert cut.result["next_offset"] == 2


async def test_a_binary_file_is_an_error_that_says_so(place, codes):
    place.put("a.png", b"\x89PNG\r\n\x1a\n\0\0")

    async with place.run() as run:
        outcome = await run.call("read_file", {"path": "a.png"})

    assert (outcome.status, codes(outcome)) == ("error", ["file.invalid_text"])
    assert outcome.result["is_image"]


async def test_bytes_that_are_no_text_are_replaced(place):
    place.put("a.txt", b"caf\xe9\n")

    async with place.run() as run:
        outcome = await run.call("read_file", {"path": "a.txt"})

    assert outcome.output == "1|caf\N{REPLACEMENT CHARACTER}\n"


async def test_a_missing_file_is_an_error_and_no_violation(place, codes):
    async with place.run() as run:
        outcome = await run.call("read_file", {"path": "nothing"})
        result = await run.finish()

    assert (outcome.status, codes(outcome)) == ("error", ["file.not_found"])
    assert result.verdict.outcome == "pass"


async def test_a_write_tells_what_was_written(place):
    async with place.run() as run:
        outcome = await run.call("write_file", {"path": "/workspace/deep/er/a.txt", "content": "hé\n"})

        assert place.inside("deep/er/a.txt") == "hé\n".encode()
    assert outcome.status == "ok"
    assert outcome.result == {
        "bytes_written": 4,
        "dirs_created": True,
        "created": True,
        "resolved_path": "deep/er/a.txt",
        "files_modified": ["deep/er/a.txt"],
        "sha256": hashlib.sha256("hé\n".encode()).hexdigest(),
    }


async def test_a_write_can_be_bound_to_what_is_there(place, codes):
    place.put("a.txt", "now")

    async with place.run() as run:
        refused = await run.call("write_file", {"path": "a.txt", "content": "x", "expected_sha256": "0" * 64})

        assert place.inside("a.txt") == b"now"
    assert (refused.status, codes(refused)) == ("error", ["file.changed"])


async def test_a_listing_shows_what_may_be_read(place, remit):
    for name in ("src/a.py", "src/deep/b.py", "secret/key", ".env"):
        place.put(name)

    async with place.run(remit(scope={"deny": [".env", "secret"]})) as run:
        flat = await run.call("list_files", {})
        deep = await run.call("list_files", {"path": "src", "recursive": True})
        short = await run.call("list_files", {"path": "src", "recursive": True, "limit": 1})

    assert flat.output == "src/\n"
    assert deep.output == "src/a.py\nsrc/deep/\nsrc/deep/b.py\n"
    assert short.result["truncated"]
    assert short.output == "src/a.py\n"

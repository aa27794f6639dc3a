"""patch: all edits or none, and every path asked for before the first byte."""

from __future__ import annotations

import pytest

from sandboxes.base import FileProblem

pytestmark = pytest.mark.anyio


def v4a(*lines):
    return {"mode": "patch", "patch": "\n".join(["*** Begin Patch", *lines, "*** End Patch"])}


async def test_a_text_that_occurs_once_is_replaced(place):
    place.put("a.py", "x = 1\ny = 2\n")

    async with place.run() as run:
        outcome = await run.call("patch", {"path": "a.py", "old_string": "x = 1", "new_string": "x = 3"})

        assert place.inside("a.py") == b"x = 3\ny = 2\n"
    assert outcome.output == "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n-x = 1\n+x = 3\n y = 2\n"
    assert outcome.result == {"success": True, "files_modified": ["a.py"], "resolved_path": "a.py"}


async def test_a_text_that_occurs_twice_needs_to_be_meant_everywhere(place, codes):
    place.put("a.py", "x x\n")
    edit = {"mode": "replace", "path": "a.py", "old_string": "x", "new_string": "y"}

    async with place.run() as run:
        refused = await run.call("patch", edit)
        done = await run.call("patch", {**edit, "replace_all": True})

        assert place.inside("a.py") == b"y y\n"
    assert codes(refused) == ["patch.ambiguous"]
    assert "2 times" in refused.reasons[0].detail
    assert done.status == "ok"


async def test_a_text_that_does_not_occur_is_an_error(place, codes):
    place.put("a.py", "x\n")

    async with place.run() as run:
        outcome = await run.call("patch", {"path": "a.py", "old_string": "z", "new_string": "y"})

    assert (outcome.status, codes(outcome)) == ("error", ["patch.no_match"])


async def test_bytes_around_an_edit_stay_what_they_are(place):
    place.put("a.txt", b"caf\xe9\r\nx\r\ny")

    async with place.run() as run:
        await run.call("patch", {"path": "a.txt", "old_string": "x\ny", "new_string": "z\nw"})

        assert place.inside("a.txt") == b"caf\xe9\r\nz\r\nw"


async def test_a_patch_adds_changes_moves_and_deletes(place):
    place.put("keep.py", "a\n")
    place.put("move.py", "b\n")
    place.put("gone.py", "c\n")

    async with place.run() as run:
        outcome = await run.call(
            "patch",
            v4a(
                "*** Add File: deep/new.py",
                "+n",
                "*** Update File: keep.py",
                "-a",
                "+A",
                "*** Update File: move.py",
                "*** Move to: moved.py",
                "-b",
                "+B",
                "*** Delete File: gone.py",
            ),
        )

        tree = {str(path.relative_to(place.sandbox.root)) for path in place.sandbox.root.rglob("*.py")}
        assert tree == {"deep/new.py", "keep.py", "moved.py"}
        assert place.inside("keep.py") == b"A\n"
        assert place.inside("moved.py") == b"B\n"
    assert outcome.result == {
        "success": True,
        "files_modified": ["keep.py"],
        "files_created": ["deep/new.py", "moved.py"],
        "files_deleted": ["move.py", "gone.py"],
    }


async def test_one_path_out_of_scope_denies_the_whole_patch(place, remit, codes):
    place.put("src/a.py", "a\n")

    async with place.run(remit(scope={"write": ["src/**"]})) as run:
        outcome = await run.call(
            "patch",
            v4a(
                "*** Update File: src/a.py",
                "*** Move to: other/a.py",
                "-a",
                "+b",
                "*** Add File: src/n",
                "+n",
            ),
        )

        assert not place.sandbox.calls
    assert (outcome.status, codes(outcome)) == ("denied", ["scope.write"])


async def test_nothing_is_written_when_one_file_does_not_fit(place, codes):
    place.put("a.py", "a\n")
    place.put("b.py", "b\n")

    async with place.run() as run:
        outcome = await run.call(
            "patch", v4a("*** Update File: a.py", "-a", "+A", "*** Update File: b.py", "-z", "+B")
        )

        assert place.inside("a.py") == b"a\n"
    assert codes(outcome) == ["patch.no_match"]


async def test_an_added_file_must_not_be_there(place, codes):
    place.put("a.py", "a\n")

    async with place.run() as run:
        outcome = await run.call("patch", v4a("*** Add File: a.py", "+x"))

        assert place.inside("a.py") == b"a\n"
    assert codes(outcome) == ["file.exists"]


async def test_what_was_written_is_put_back_when_a_later_write_fails(place, codes, monkeypatch):
    place.put("a.py", "a\n")
    place.put("b.py", "b\n")

    async with place.run() as run:
        sandbox = place.sandbox
        write = sandbox.write_file

        async def failing(path, data, **options):
            if path == "b.py":
                return FileProblem(kind="permission", path=path, detail="read-only")
            return await write(path, data, **options)

        monkeypatch.setattr(sandbox, "write_file", failing)
        outcome = await run.call(
            "patch",
            v4a(
                "*** Add File: deep/new",
                "+n",
                "*** Update File: a.py",
                "-a",
                "+A",
                "*** Update File: b.py",
                "-b",
                "+B",
            ),
        )

        assert place.inside("a.py") == b"a\n"
        assert not (sandbox.root / "deep").exists()
    assert (outcome.status, codes(outcome)) == ("error", ["file.permission"])


async def test_a_file_that_changes_under_a_patch_stops_it(place, codes, monkeypatch):
    place.put("a.py", "a\n")

    async with place.run() as run:
        sandbox = place.sandbox
        write = sandbox.write_file

        async def racing(path, data, **options):
            place.meddle("a.py", "somebody else's\n")
            return await write(path, data, **options)

        monkeypatch.setattr(sandbox, "write_file", racing)
        outcome = await run.call("patch", {"path": "a.py", "old_string": "a", "new_string": "b"})

        assert place.inside("a.py") == b"somebody else's\n"
    assert codes(outcome) == ["file.changed"]


async def test_a_patch_that_writes_more_than_is_left_writes_nothing(place, remit, codes):
    place.put("a.txt", "x" * 1000 + "END\n")

    async with place.run(remit(budget={"written": 500})) as run:
        outcome = await run.call("patch", {"path": "a.txt", "old_string": "END", "new_string": "end"})

        assert place.inside("a.txt").endswith(b"END\n")
    assert (outcome.status, codes(outcome)) == ("denied", ["budget.written"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "patch"},
        {"mode": "patch", "patch": "x", "path": "a"},
        {"mode": "replace", "path": "a", "old_string": "a"},
        {"mode": "replace", "path": "a", "old_string": "", "new_string": "b"},
        {"mode": "replace", "path": "a", "old_string": "b", "new_string": "b"},
        {"mode": "replace", "path": "a", "old_string": "a", "new_string": "b", "patch": "x"},
        {"mode": "other", "path": "a", "old_string": "a", "new_string": "b"},
        {"path": "a", "old_string": "a", "new_string": "b", "cross_profile": True},
    ],
)
async def test_arguments_of_the_wrong_mode_are_denied(place, codes, arguments):
    async with place.run() as run:
        outcome = await run.call("patch", arguments)

    assert (outcome.status, codes(outcome)) == ("denied", ["arguments.invalid"])

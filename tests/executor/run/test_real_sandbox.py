"""The whole loop on the embedded sandbox, as a user has it."""

from __future__ import annotations

import os
import sys
import time

import anyio
import pytest
from anyio import to_thread

from sandboxes.open import open_sandbox

pytestmark = pytest.mark.anyio

CHECK = "import router\nassert router.route('x') == 'safe', router.route('x')\n"
BROKEN = "def route(name):\n    return 'open'\n"
MENDED = "def route(name):\n    return 'safe'\n"


@pytest.fixture
def real(place):
    def opened(contract=None, **options):
        return place.run(contract, sandbox_factory=open_sandbox, **options)

    return opened


def snapshot(tree):
    return {
        str(path.relative_to(tree)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in tree.rglob("*")
    }


async def test_a_fix_within_scope_passes_and_is_applied(place, real, remit):
    place.put("router.py", BROKEN)
    place.put("check.py", CHECK)
    contract = remit(
        scope={"write": ["router.py"]}, checks=[{"run": ["python3", "check.py"]}], commit="on_pass"
    )

    async with real(contract) as run:
        outcome = await run.call(
            "patch", {"path": "router.py", "old_string": "'open'", "new_string": "'safe'"}
        )
        seen = await run.call("terminal", {"command": "python3 check.py && cat router.py"})
        result = await run.finish()

    assert outcome.status == "ok"
    assert (seen.exit_code, seen.output) == (0, MENDED)
    assert [check.status for check in result.checks] == ["passed"]
    assert result.verdict.outcome == "pass", result.verdict
    assert result.applied
    assert (place.tree / "router.py").read_text() == MENDED


async def test_a_claim_that_tests_pass_is_no_evidence(place, real, remit):
    place.put("router.py", BROKEN)
    place.put("check.py", CHECK)
    before = snapshot(place.tree)
    contract = remit(
        scope={"write": ["router.py"]}, checks=[{"run": ["python3", "check.py"]}], commit="on_pass"
    )

    async with real(contract) as run:
        await run.call("write_file", {"path": "router.py", "content": BROKEN + "# tests pass\n"})
        await run.call("terminal", {"command": "echo all tests pass"})
        result = await run.finish()

    assert result.verdict.outcome == "fail"
    assert snapshot(place.tree) == before


async def test_a_file_beside_the_scope_makes_a_good_fix_mixed(place, real, remit):
    place.put("router.py", BROKEN)
    place.put("check.py", CHECK)
    contract = remit(scope={"write": ["router.py"]}, checks=[{"run": ["python3", "check.py"]}])

    async with real(contract) as run:
        await run.call("write_file", {"path": "router.py", "content": MENDED})
        await run.call("terminal", {"command": "echo 'print(1)' > run_tests.py; python3 run_tests.py"})
        result = await run.finish()

    assert result.verdict.outcome == "mixed"
    assert [found["body"]["detail"] for found in place.records("violation")] == ["run_tests.py"]


async def test_a_check_cannot_be_influenced_by_what_a_command_left_running(place, real, remit):
    place.put("check.sh", 'test ! -e /tmp/planted && test -z "$(pgrep -f planted || true)"\n')

    async with real(remit(checks=[{"run": ["sh", "check.sh"]}])) as run:
        await run.call("terminal", {"command": "touch /tmp/planted; (sleep 600; :) & disown; true"})
        result = await run.finish()

    assert [check.status for check in result.checks] == ["passed"]


async def test_denied_and_protected_paths_bind_commands(place, real, remit):
    place.put(".env", "SECRET=1")
    place.put(".git/config", "[core]\n")
    place.put("a.txt", "a")

    async with real(remit(scope={"deny": [".env"]})) as run:
        outcome = await run.call(
            "terminal",
            {"command": "cat .env; echo x >> .git/config; rm -f .env; echo new > .envrc; cat .git/config"},
        )
        listed = await run.call("list_files", {"recursive": True})
        result = await run.finish()

    assert "SECRET" not in outcome.output
    assert "[core]" in outcome.output
    assert ".env\n" not in listed.output
    assert [change.path for change in result.changes.changes] == [".envrc"]
    [violation] = place.records("violation")
    assert violation["body"]["code"] == "growth.protected"


ATTACKS = [
    "../secret",
    "a/../../secret",
    "/etc/passwd",
    "/workspace/../etc/passwd",
    "/workspaces/secret",
    "/proc/self/root/etc/passwd",
    "/proc/self/cwd/a.txt",
    "~/.ssh/id_rsa",
    "../tree-sibling/secret",
    "link/passwd",
    "up/secret",
    "./link/../../secret",
    "..",
    "/",
]


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("path", ATTACKS)
async def test_a_path_that_leaves_the_workspace_is_denied_and_in_the_journal(
    place, real, codes, path, exists
):
    place.put("a.txt", "a")
    if exists:
        (place.path / "secret").write_text("SECRET")
        (place.path / "tree-sibling").mkdir()
        (place.path / "tree-sibling" / "secret").write_text("SECRET")
    (place.tree / "link").symlink_to("/etc" if exists else "/nothing/here")
    (place.tree / "up").symlink_to(".." if exists else "../../nowhere")
    calls = [
        ("read_file", {"path": path}),
        ("write_file", {"path": path, "content": "x"}),
        ("patch", {"path": path, "old_string": "a", "new_string": "b"}),
        ("list_files", {"path": path}),
        ("search_files", {"path": path, "pattern": "."}),
        ("terminal", {"command": "cat secret passwd", "workdir": path}),
    ]

    async with real() as run:
        outcomes = [await run.call(*call) for call in calls[:3]]
        others = [await run.call(*call) for call in calls[3:]]

    for outcome in (*outcomes, *others):
        assert outcome.status == "denied", outcome
        assert codes(outcome)[0] in {"scope.outside", "scope.link"}
        assert "SECRET" not in outcome.output
    ids = {record["body"]["call"] for record in place.records("call.decided")}
    assert {outcome.call for outcome in (*outcomes, *others)} <= ids
    assert (place.path / "secret").exists() == exists


async def test_same_prefix_is_not_the_same_directory(place, real, remit, codes):
    place.put("src/a", "a")
    place.put("src-other/a", "a")

    async with real(remit(scope={"read": ["src/**"], "write": ["src/**"]})) as run:
        inside = await run.call("read_file", {"path": "src/a"})
        outside = await run.call("read_file", {"path": "src-other/a"})
        written = await run.call("write_file", {"path": "src2", "content": "x"})

    assert inside.status == "ok"
    assert codes(outside) == ["scope.read"]
    assert codes(written) == ["scope.write"]


async def test_what_is_no_plain_file_is_answered_at_once(place, real, codes):
    os.mkfifo(place.tree / "fifo")
    with (place.tree / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    place.put("latin", b"caf\xe9\n")
    started = time.monotonic()

    async with real() as run:
        fifo = await run.call("read_file", {"path": "fifo"})
        sparse = await run.call("read_file", {"path": "sparse"})
        nul = await run.call("read_file", {"path": "a\0b"})
        long = await run.call("read_file", {"path": "x/" * 2500})
        wide = await run.call("read_file", {"path": "y" * 300})
        latin = await run.call("read_file", {"path": "latin"})

    assert codes(fifo) == ["file.not_regular"]
    assert codes(sparse) == ["file.invalid_text"]
    assert codes(nul) == codes(long) == ["arguments.invalid"]
    assert codes(wide) == ["file.name_too_long"]
    assert latin.status == "ok"
    assert time.monotonic() - started < 30


async def test_search_finds_content_and_names_within_scope(place, real, remit, codes):
    place.put("src/a.py", "import os\nneedle = 1\n")
    place.put("src/b.txt", "needle\n" * 3)
    place.put("secret/c.py", "needle\n")
    place.put("bin", b"needle\0")
    (place.tree / "link.py").symlink_to("src/a.py")

    async with real(remit(scope={"deny": ["secret"], "write": []})) as run:
        content = await run.call("search_files", {"pattern": "needle"})
        globbed = await run.call("search_files", {"pattern": "needle", "file_glob": "*.py", "context": 1})
        names = await run.call("search_files", {"pattern": "*.py", "target": "files", "path": "src"})
        counted = await run.call("search_files", {"pattern": "needle", "output_mode": "count"})
        paged = await run.call("search_files", {"pattern": "needle", "limit": 1, "offset": 1})
        paths = await run.call("search_files", {"pattern": "needle", "output_mode": "files_only"})
        broken = await run.call("search_files", {"pattern": "("})
        absent = await run.call("search_files", {"pattern": "x", "path": "absent"})
        linked = await run.call("search_files", {"pattern": "needle", "path": "link.py"})
        result = await run.finish()

    assert content.output == (
        "src/a.py:2:needle = 1\nsrc/b.txt:1:needle\nsrc/b.txt:2:needle\nsrc/b.txt:3:needle\n"
    )
    assert content.result["total_count"] == 4
    assert globbed.output == "src/a.py-1-import os\nsrc/a.py:2:needle = 1\n"
    assert names.output == "src/a.py\n"
    assert counted.output == "src/a.py:1\nsrc/b.txt:3\n"
    assert paged.output == "src/b.txt:1:needle\n"
    assert paged.result == {"total_count": 4, "truncated": True, "next_offset": 2}
    assert paths.output == "src/a.py\nsrc/b.txt\n"
    assert codes(broken) == ["search.invalid"]
    assert codes(absent) == ["file.not_found"]
    assert codes(linked) == ["file.symlink"]
    assert result.verdict.outcome == "pass"
    assert result.changes.changes == ()


async def test_a_regular_expression_without_end_meets_the_wall_limit(place, real, remit, codes):
    place.put("a.txt", "a" * 64 + "b\n")

    async with real(remit(sandbox={"command_timeout": "1s"})) as run:
        outcome = await run.call("search_files", {"pattern": "(a+)+$"})
        after = await run.call("read_file", {"path": "a.txt"})

    assert (outcome.status, outcome.limit) == ("limit", "wall")
    assert after.status == "ok"


async def test_a_command_that_misbehaves_ends_with_its_limit_and_the_next_one_works(place, real, remit):
    contract = remit(
        sandbox={"disk": "8MiB", "memory": "128MiB", "output_limit": "1MiB"}, scope={"write": ["**"]}
    )
    async with real(contract) as run:
        disk = await run.call("terminal", {"command": "head -c 64M /dev/zero > big; rm -f big"})
        memory = await run.call("terminal", {"command": "python3 -c 'x = bytearray(400 * 2**20)'"})
        output = await run.call("terminal", {"command": "yes", "timeout": 20})
        wall = await run.call("terminal", {"command": "exec >&- 2>&-; sleep 60", "timeout": 1})
        left = await run.call("terminal", {"command": "setsid sleep 400 & sleep 0.1; echo started"})
        after = await run.call("terminal", {"command": "pgrep sleep; echo alive"})

    assert disk.exit_code == 0 or disk.limit == "disk"
    assert memory.limit == "memory" or memory.exit_code == 1
    assert (output.status, output.limit) == ("limit", "output")
    assert (wall.status, wall.limit) == ("limit", "wall")
    assert left.output == "started\n"
    assert after.output == "alive\n"


async def test_calls_in_flight_do_not_disturb_each_other(place, real, remit):
    async with real(remit(scope={"write": ["out/**"]})) as run:
        outcomes = []

        async def call(tool, arguments):
            outcomes.append(await run.call(tool, arguments))

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(call, "write_file", {"path": f"out/{number}", "content": "x" * 1000})
                group.start_soon(
                    call, "terminal", {"command": f"mkdir -p out; echo {number} > out/t{number}"}
                )
        result = await run.finish()

    assert {outcome.status for outcome in outcomes} == {"ok"}
    assert place.records("violation") == []
    assert result.verdict.outcome == "pass"
    assert len([change for change in result.changes.changes if change.kind == "file"]) == 40


async def test_a_change_made_in_an_earlier_life_is_there_in_the_next(place, real, remit):
    place.put("gone", "x")
    place.put("script", "#!/bin/sh\n")

    async with real() as run:
        await run.call("terminal", {"command": "rm gone; mkdir -p a/empty; ln -s b c; chmod 755 script"})
        name = run.id
    async with real(resume=name) as run:
        outcome = await run.call(
            "terminal", {"command": "ls -d gone a/empty 2>/dev/null; readlink c; stat -c %a script"}
        )
        result = await run.finish()

    assert outcome.output == "a/empty\nb\n755\n"
    assert [change.path for change in result.changes.changes] == ["a", "a/empty", "c", "gone", "script"]
    assert result.verdict.outcome == "pass"


async def test_what_grew_in_an_earlier_life_is_no_finding_of_a_later_call(place, real, remit, codes):
    contract = remit(scope={"write": ["src/**"]})

    async with real(contract) as run:
        await run.call("terminal", {"command": "mkdir src; echo x | tee src/a > extra"})
        name = run.id
    async with real(contract, resume=name) as run:
        left = run.remaining.violations
        await run.call("terminal", {"command": "true"})
        still_left = run.remaining.violations
        result = await run.finish()

    assert still_left == left
    assert [record["body"]["call"] for record in place.records("violation")] == ["c-0001"]
    assert result.verdict.outcome == "mixed"


async def test_plain_code_has_the_same_run(place, remit):
    from executor.sync import open_run

    def plain():
        with open_run(remit(), base=place.path, store=place.store) as run:
            outcome = run.call("terminal", {"command": "echo hello"})
            return outcome, run.finish()

    outcome, result = await to_thread.run_sync(plain)

    assert outcome.output == "hello\n"
    assert result.verdict.outcome == "pass"
    assert sys.modules["executor.sync"]


async def test_a_command_that_is_given_up_has_no_effect_afterwards(place, real):
    async with real() as run:
        with anyio.move_on_after(0.3):
            await run.call("terminal", {"command": "sleep 0.8; touch late"})
        await anyio.sleep(1)
        listed = await run.call("list_files", {})
        result = await run.finish()

    assert listed.output == ""
    assert result.changes.changes == ()
    assert [record["body"]["status"] for record in place.records("call.ended")] == ["error", "ok"]


async def test_a_run_that_ends_under_a_call_records_its_end_first(place, real):
    outcomes = []
    async with real() as run:

        async def call():
            outcomes.append(await run.call("terminal", {"command": "sleep 60"}))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.sleep(0.3)
            result = await run.finish()

    assert [outcome.status for outcome in outcomes] == ["error"]
    kinds = [record["kind"] for record in place.records()]
    assert kinds.index("call.ended") < kinds.index("workspace.changes")
    assert result.verdict.outcome == "unproven"

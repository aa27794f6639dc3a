from __future__ import annotations

import hashlib
import os
import time
from functools import partial

import pytest

from sandboxes.base import FileContent, FileProblem, FileRemoved, FileWritten, Listing, ResourceLimits

pytestmark = pytest.mark.anyio

# File tools open paths by openat2, or by a walk where the kernel does not have it.
WAYS = (("asyncio", "openat2"), ("trio", "openat2"), ("asyncio", "walk"))

ODD = b"n\xff\xfe\x1b[31m".decode("utf-8", "surrogateescape")


@pytest.fixture(params=WAYS, ids="-".join)
def way(request):
    return request.param


@pytest.fixture
def anyio_backend(way):
    return way[0]


@pytest.fixture
def opened(opened, way):
    return partial(opened, opener=way[1])


async def test_paths_are_opened_in_the_way_that_this_run_is_for(opened, way):
    async with opened() as sandbox:
        # The one difference that can be seen: the walk does not look at what follows the last name.
        read = await sandbox.read_file("a.txt/", max_bytes=9)

    seen = read.kind if isinstance(read, FileProblem) else read.data
    assert seen == (b"alpha\n" if way[1] == "walk" else "not_directory")


async def test_a_file_reads_back_exactly_what_was_written(opened):
    data = bytes(range(256)) * 10

    async with opened() as sandbox:
        written = await sandbox.write_file("new/deep/file.bin", data)
        read = await sandbox.read_file("new/deep/file.bin", max_bytes=1 << 20)

    assert written == FileWritten(created=True, bytes_written=len(data), directories_created=2)
    assert read == FileContent(data=data, size=len(data), mode=0o644, truncated=False)


async def test_the_users_tree_is_never_written(opened, workspace, sh):
    async with opened() as sandbox:
        await sandbox.write_file("a.txt", b"changed")
        await sandbox.remove("sub/b.txt")
        await sandbox.exec(sh("rm -rf sub; echo x > new; chmod 700 ."))
        seen = await sandbox.read_file("a.txt", max_bytes=100)

    assert isinstance(seen, FileContent)
    assert seen.data == b"changed"
    assert sorted(os.listdir(workspace)) == ["a.txt", "sub"]
    assert (workspace / "a.txt").read_text() == "alpha\n"
    assert (workspace / "sub" / "b.txt").read_text() == "beta\n"


async def test_a_part_of_a_file_can_be_read(opened):
    async with opened() as sandbox:
        await sandbox.write_file("f", b"0123456789")
        middle = await sandbox.read_file("f", offset=3, max_bytes=4)
        beyond = await sandbox.read_file("f", offset=50, max_bytes=4)

    assert middle == FileContent(data=b"3456", size=10, mode=0o644, truncated=True)
    assert beyond == FileContent(data=b"", size=10, mode=0o644, truncated=False)


async def test_mode_is_kept_unless_one_is_given(opened, workspace):
    (workspace / "run.sh").write_text("x")
    (workspace / "run.sh").chmod(0o751)

    async with opened() as sandbox:
        await sandbox.write_file("run.sh", b"y")
        kept = await sandbox.read_file("run.sh", max_bytes=9)
        await sandbox.write_file("run.sh", b"z", mode=0o600)
        given = await sandbox.read_file("run.sh", max_bytes=9)

    assert isinstance(kept, FileContent)
    assert isinstance(given, FileContent)
    assert (kept.mode, given.mode) == (0o751, 0o600)


async def test_expected_content_guards_a_write(opened):
    digest = hashlib.sha256(b"alpha\n").hexdigest()

    async with opened() as sandbox:
        first = await sandbox.write_file("a.txt", b"one", expected_sha256=digest)
        second = await sandbox.write_file("a.txt", b"two", expected_sha256=digest)
        missing = await sandbox.write_file("none", b"two", expected_sha256=digest)
        read = await sandbox.read_file("a.txt", max_bytes=9)

    assert isinstance(first, FileWritten)
    assert isinstance(second, FileProblem)
    assert isinstance(missing, FileProblem)
    assert (second.kind, missing.kind) == ("changed", "changed")
    assert isinstance(read, FileContent)
    assert read.data == b"one"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("none", "not_found"),
        ("none/x", "not_found"),
        ("sub", "is_directory"),
        (".", "is_directory"),
        ("a.txt/x", "not_directory"),
        ("fifo", "not_regular"),
        ("socket", "not_regular"),
        ("x\0y", "invalid_path"),
        ("n" * 300, "name_too_long"),
        ("d/" * 2500 + "x", "name_too_long"),
        ("../tree/a.txt", "outside"),
        ("/etc/passwd", "outside"),
        ("secret", "permission"),
    ],
)
async def test_reading_what_cannot_be_read_says_why(opened, sh, path, kind):
    bind = "import socket; socket.socket(socket.AF_UNIX).bind('socket')"
    make = f'mkfifo fifo; python3 -c "{bind}"; touch secret; chmod 0 secret'

    async with opened() as sandbox:
        await sandbox.exec(sh(make))
        before = time.monotonic()
        problem = await sandbox.read_file(path, max_bytes=100)

    assert time.monotonic() - before < 3
    assert isinstance(problem, FileProblem)
    assert (problem.kind, problem.path) == (kind, path)


@pytest.mark.parametrize(
    ("path", "changes", "kind"),
    [
        ("sub", {}, "is_directory"),
        (".", {}, "is_directory"),
        ("a.txt/x", {}, "not_directory"),
        ("none/x", {"create_parents": False}, "not_found"),
        ("a.txt", {"must_not_exist": True}, "exists"),
        ("fifo", {}, "not_regular"),
        ("x\0y", {}, "invalid_path"),
        ("n" * 300, {}, "name_too_long"),
        ("../x", {}, "outside"),
        ("/tmp/x", {}, "outside"),
        ("a/../../x", {}, "outside"),
    ],
)
async def test_writing_what_cannot_be_written_says_why_and_changes_nothing(opened, sh, path, changes, kind):
    async with opened() as sandbox:
        await sandbox.exec(sh("mkfifo fifo"))
        before = await sandbox.list_directory(".", recursive=True)
        problem = await sandbox.write_file(path, b"data", **changes)
        after = await sandbox.list_directory(".", recursive=True)

    assert isinstance(problem, FileProblem)
    assert problem.kind == kind
    assert before == after


@pytest.mark.parametrize(
    ("link", "path", "target"),
    [
        ("/etc/passwd", "link", None),
        ("../../etc/passwd", "link", None),
        ("missing", "link", "missing"),
        ("a.txt", "link", "a.txt"),
        ("/workspace/sub", "link/b.txt", "sub/b.txt"),
        ("sub", "link/b.txt", "sub/b.txt"),
        ("/workspace-evil/x", "link", None),
        ("link", "link", "link"),
        (".", "link/sub/b.txt", "sub/b.txt"),
    ],
)
async def test_a_link_is_never_followed_but_named(opened, link, path, target):
    async with opened() as sandbox:
        await sandbox.make_symlink("link", target=link)
        read = await sandbox.read_file(path, max_bytes=100)
        written = await sandbox.write_file(path, b"evil")

    for problem in (read, written):
        assert isinstance(problem, FileProblem)
        assert (problem.kind, problem.target) == ("symlink", target)


async def test_a_huge_sparse_file_is_read_within_the_bound(opened, sh):
    limits = ResourceLimits(file_bytes=1 << 50)

    async with opened(limits=limits) as sandbox:
        await sandbox.exec(sh("truncate -s 500G sparse"))
        read = await sandbox.read_file("sparse", offset=1 << 36, max_bytes=1 << 20)

    assert isinstance(read, FileContent)
    assert read.data == bytes(1 << 20)
    assert read.truncated


async def test_a_full_disk_leaves_the_file_as_it_was(opened, sh):
    limits = ResourceLimits(disk_bytes=2 << 20)

    async with opened(limits=limits) as sandbox:
        problem = await sandbox.write_file("p/q/a.txt", b"x" * (8 << 20))
        listing = await sandbox.list_directory(".", recursive=True)
        fits = await sandbox.write_file("fits", b"x" * (1 << 20))

    assert isinstance(problem, FileProblem)
    assert problem.kind == "no_space"
    assert isinstance(listing, Listing)
    assert [entry.path for entry in listing.entries] == ["a.txt", "sub", "sub/b.txt"]
    assert isinstance(fits, FileWritten)


async def test_directories_links_and_removal(opened):
    async with opened() as sandbox:
        made = await sandbox.make_directory("d", mode=0o750)
        again = await sandbox.make_directory("d", mode=0o700)
        orphan = await sandbox.make_directory("none/d")
        taken = await sandbox.make_symlink("a.txt", target="x")
        await sandbox.write_file("d/f", b"")
        full = await sandbox.remove("d")
        gone = [await sandbox.remove(path) for path in ("d/f", "d", "a.txt")]
        missing = await sandbox.remove("a.txt")

    assert isinstance(made, FileWritten)
    assert isinstance(again, FileWritten)
    assert (made.created, again.created) == (True, False)
    assert [
        problem.kind for problem in (orphan, taken, full, missing) if isinstance(problem, FileProblem)
    ] == [
        "not_found",
        "exists",
        "is_directory",
        "not_found",
    ]
    assert gone == [FileRemoved(path=path) for path in ("d/f", "d", "a.txt")]


async def test_removing_a_link_leaves_what_it_leads_to(opened):
    async with opened() as sandbox:
        await sandbox.make_symlink("link", target="sub")
        removed = await sandbox.remove("link")
        read = await sandbox.read_file("sub/b.txt", max_bytes=10)

    assert isinstance(removed, FileRemoved)
    assert isinstance(read, FileContent)


async def test_listing_is_ordered_bounded_and_keeps_odd_names(opened):
    async with opened() as sandbox:
        await sandbox.write_file(ODD, b"12")
        await sandbox.make_symlink("z", target="/")
        whole = await sandbox.list_directory(".", recursive=True)
        flat = await sandbox.list_directory("sub")
        cut = await sandbox.list_directory(".", recursive=True, max_entries=2)
        read = await sandbox.read_file(ODD, max_bytes=9)

    assert isinstance(whole, Listing)
    assert isinstance(flat, Listing)
    assert isinstance(cut, Listing)
    assert isinstance(read, FileContent)
    kinds = {entry.path: (entry.kind, entry.size) for entry in whole.entries}
    assert kinds[ODD] == ("file", 2)
    assert kinds["z"][0] == "symlink"
    assert [entry.path for entry in whole.entries] == sorted(kinds)
    assert [entry.path for entry in flat.entries] == ["sub/b.txt"]
    assert (len(cut.entries), cut.truncated) == (2, True)


async def test_hidden_paths_read_as_empty_to_everything_inside(opened, workspace, sh):
    (workspace / ".env").write_text("SECRET=1")
    (workspace / "keys").mkdir()
    (workspace / "keys" / "id").write_text("SECRET=2")

    async with opened(hidden=(".env", "keys")) as sandbox:
        seen = await sandbox.exec(
            sh("cat .env keys/*; ls -A keys; cat /proc/self/mountinfo | grep -c SECRET")
        )
        tried = await sandbox.exec(
            sh("umount .env; rm -f .env; rm -rf keys; echo x > .env; mv keys k; grep -r SECRET . /.remit")
        )
        read = await sandbox.read_file(".env", max_bytes=100)
        written = await sandbox.write_file(".env", b"x")
        below = await sandbox.write_file("keys/new", b"x")

    assert b"SECRET" not in seen.output
    assert b"SECRET" not in tried.output
    assert isinstance(read, FileContent)
    assert read.data == b""
    assert isinstance(written, FileProblem)
    assert isinstance(below, FileProblem)
    assert (written.kind, below.kind) == ("permission", "permission")


async def test_read_only_paths_can_be_read_and_not_written_by_anything_inside(opened, workspace, sh):
    (workspace / ".git").mkdir()
    (workspace / ".git" / "config").write_text("[core]\n")
    (workspace / "tool.toml").write_text("x=1\n")

    async with opened(read_only=(".git", "tool.toml")) as sandbox:
        await sandbox.exec(
            sh("echo y >> tool.toml; rm -f tool.toml; echo z > .git/hook; rm -rf .git; mv .git g")
        )
        seen = await sandbox.exec(sh("cat .git/config tool.toml; ls -A .git"))
        read = await sandbox.read_file(".git/config", max_bytes=100)
        written = await sandbox.write_file(".git/config", b"x")
        replaced = await sandbox.write_file("tool.toml", b"x")
        removed = await sandbox.remove("tool.toml")

    assert seen.output == b"[core]\nx=1\nconfig\n"
    assert isinstance(read, FileContent)
    assert read.data == b"[core]\n"
    for problem in (written, replaced, removed):
        assert isinstance(problem, FileProblem)
        assert problem.kind == "permission"


async def test_covers_work_for_odd_names_and_leave_links_alone(opened, workspace):
    (workspace / "with space").write_text("SECRET")
    os.symlink("a.txt", workspace / "link")

    async with opened(hidden=("with space", "link")) as sandbox:
        read = await sandbox.read_file("with space", max_bytes=10)
        plain = await sandbox.read_file("a.txt", max_bytes=10)

    assert isinstance(read, FileContent)
    assert isinstance(plain, FileContent)
    assert (read.data, plain.data) == (b"", b"alpha\n")


async def test_large_files_pass_in_one_piece(opened):
    data = os.urandom(1 << 20) * 20

    async with opened() as sandbox:
        await sandbox.write_file("big", data)
        read = await sandbox.read_file("big", max_bytes=1 << 30)

    assert isinstance(read, FileContent)
    assert read.data == data


async def test_used_bytes_follow_what_was_written(opened):
    async with opened() as sandbox:
        before = await sandbox.used_bytes()
        await sandbox.write_file("f", b"x" * 1_000_000)
        after = await sandbox.used_bytes()

    assert 1_000_000 <= after - before < 1_100_000


@pytest.mark.parametrize("path", ["\ud800", "", "x" * 5000, "a\0b"])
async def test_a_path_that_no_file_can_have_is_answered_by_every_operation(opened, path):
    async with opened() as sandbox:
        answers = [
            await sandbox.read_file(path, max_bytes=1),
            await sandbox.write_file(path, b""),
            await sandbox.remove(path),
            await sandbox.make_directory(path),
            await sandbox.make_symlink(path, target="x"),
            await sandbox.list_directory(path),
        ]
        bad_target = await sandbox.make_symlink("l", target="\ud800")
        await sandbox.ping()

    assert isinstance(bad_target, FileProblem)
    for answer in answers:
        assert isinstance(answer, FileProblem)
        assert answer.kind in ("invalid_path", "name_too_long")


async def test_a_file_longer_than_a_frame_is_written_whole_within_the_disk_limit(opened):
    data = os.urandom(1 << 20) * 90
    limits = ResourceLimits(disk_bytes=100 << 20)

    async with opened(limits=limits) as sandbox:
        written = await sandbox.write_file("huge", data)
        used = await sandbox.used_bytes()
        again = await sandbox.write_file("other", data)
        after = await sandbox.used_bytes()
        tail = await sandbox.read_file("huge", offset=len(data) - 100, max_bytes=1000)

    assert written == FileWritten(created=True, bytes_written=len(data), directories_created=0)
    assert used < len(data) + (1 << 20)
    assert isinstance(again, FileProblem)
    assert again.kind == "no_space"
    assert after == used
    assert isinstance(tail, FileContent)
    assert tail.data == data[-100:]

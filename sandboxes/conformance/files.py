"""Checks of the file methods, which need no command."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anyio
import anyio.to_thread

from sandboxes.base import Listing, ResourceLimits, Sandbox
from sandboxes.conformance.suite import (
    MIB,
    OpenSandbox,
    checks,
    done,
    expect,
    expect_true,
    fingerprint,
    problem,
    spec,
)
from sandboxes.workspace.changes import read_changes
from sandboxes.workspace.manifest import export_changes
from sandboxes.workspace.restore import restore_changes
from sandboxes.workspace.snapshot import Snapshot

_ODD_NAMES = ("-rf", "n\nl", "sp ace", "\udcff\udcfe", "\x1b[2J", "é", "%41", "*")


async def check_reading(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Content, size, mode and truncation are told of the whole file and of a part."""
    async with open_sandbox(spec(workspace)) as sandbox:
        whole = done(await sandbox.read_file("bytes", max_bytes=1000))
        expect((whole.data, whole.size, whole.truncated), (bytes(range(256)), 256, False), "a whole file")
        part = done(await sandbox.read_file("bytes", offset=16, max_bytes=4))
        expect((part.data, part.size, part.truncated), (bytes(range(16, 20)), 256, True), "a part")
        beyond = done(await sandbox.read_file("bytes", offset=999, max_bytes=4))
        expect((beyond.data, beyond.size), (b"", 256), "beyond the end")
        expect(done(await sandbox.read_file("run.sh", max_bytes=1)).mode, 0o755, "the mode")


async def check_writing(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A new file gets 0644 or the mode asked for, an old one keeps its own, missing parents are made."""
    async with open_sandbox(spec(workspace)) as sandbox:
        new = done(await sandbox.write_file("x/y/new", b"one"))
        expect((new.created, new.bytes_written, new.directories_created), (True, 3, 2), "a new file")
        expect(await _read(sandbox, "x/y/new"), (b"one", 0o644), "a new file")
        old = done(await sandbox.write_file("run.sh", b"two"))
        expect((old.created, old.directories_created), (False, 0), "an old file")
        expect(await _read(sandbox, "run.sh"), (b"two", 0o755), "an old file keeps its mode")
        done(await sandbox.write_file("run.sh", b"", mode=0o600))
        expect(await _read(sandbox, "run.sh"), (b"", 0o600), "an old file with a mode asked for")
        data = bytes(range(256)) * 16 * 1024
        done(await sandbox.write_file("big", data))
        expect_true(
            (await _read(sandbox, "big", max_bytes=8 * MIB))[0] == data, "four megabytes changed on the way"
        )


async def check_conditional_writing(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A write can demand that a file is new or that its content is known, and changes nothing otherwise."""
    known, other = hashlib.sha256(b"alpha\n").hexdigest(), "0" * 64
    async with open_sandbox(spec(workspace)) as sandbox:
        problem(await sandbox.write_file("a.txt", b"x", must_not_exist=True), "exists", "a file that exists")
        problem(await sandbox.write_file("a.txt", b"x", expected_sha256=other), "changed", "another content")
        problem(await sandbox.write_file("none", b"x", expected_sha256=known), "changed", "a missing file")
        problem(
            await sandbox.write_file("no/parent", b"x", create_parents=False), "not_found", "a missing parent"
        )
        expect(await _read(sandbox, "a.txt"), (b"alpha\n", 0o644), "after refused writes")
        done(await sandbox.write_file("a.txt", b"x", expected_sha256=known))
        done(await sandbox.write_file("new", b"x", must_not_exist=True))


async def check_times_of_modification(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A written file gets the time of modification that is asked for, to the nanosecond."""
    asked = 1_000_000_000_123_456_789
    async with open_sandbox(spec(workspace)) as sandbox:
        done(await sandbox.write_file("a.txt", b"x", modified_ns=asked))
    snapshot = await anyio.to_thread.run_sync(Snapshot.of, sandbox)
    [change] = snapshot.changes
    content = await anyio.to_thread.run_sync(snapshot.content, change)
    expect((content.data, content.modified_ns), (b"x", asked), "a file with a time asked for")


async def check_problems_of_paths(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Reading and writing answer the same problem for a path that cannot be one."""
    wanted = {
        "is_directory": ("sub", "."),
        "not_directory": ("a.txt/x",),
        "outside": ("../secret", "sub/../../secret", "/etc/passwd"),
        "invalid_path": ("", "a\0b"),
        "name_too_long": ("x" * 300, "y/" * 4000 + "y"),
    }
    async with open_sandbox(spec(workspace)) as sandbox:
        for kind, paths in wanted.items():
            for path in paths:
                problem(await sandbox.read_file(path, max_bytes=1), kind, f"reading {path[:40]!r}")
                problem(await sandbox.write_file(path, b"x"), kind, f"writing {path[:40]!r}")
        problem(await sandbox.read_file("none", max_bytes=1), "not_found", "reading nothing")
        problem(await sandbox.read_file("none/x", max_bytes=1), "not_found", "reading in nothing")


async def check_links_are_not_followed(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A path through a link is a problem that names where inside it leads, or nothing if that is outside."""
    leads = {
        "link": "sub/b.txt",
        "link-to-directory/b.txt": "sub/b.txt",
        "link-to-directory/none": "sub/none",
        "link-out": None,
        "link-up": None,
    }
    async with open_sandbox(spec(workspace)) as sandbox:
        for path, target in leads.items():
            read = problem(await sandbox.read_file(path, max_bytes=9), "symlink", f"reading {path}")
            expect(read.target, target, f"where {path} leads")
            problem(await sandbox.write_file(path, b"x"), "symlink", f"writing {path}")
        problem(await sandbox.list_directory("link-to-directory"), "symlink", "listing a link")
        problem(await sandbox.remove("link-to-directory/b.txt"), "symlink", "removing through a link")
        expect(await _read(sandbox, "sub/b.txt"), (b"beta\n", 0o644), "what the links lead to")


async def check_removing(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Files, links and empty directories go; a full directory stays."""
    async with open_sandbox(spec(workspace)) as sandbox:
        for path in ("a.txt", "link", "link-to-directory", "empty"):
            done(await sandbox.remove(path))
            problem(await sandbox.remove(path), "not_found", f"removing {path} twice")
        answer = await sandbox.remove("sub")
        expect_true(
            getattr(answer, "kind", None) in {"exists", "is_directory"},
            f"removing a full directory: {answer}",
        )
        expect(await _read(sandbox, "sub/b.txt"), (b"beta\n", 0o644), "what a removed link led to")


async def check_directories_and_links(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Directories get their mode, existing ones too; links hold what they are given."""
    async with open_sandbox(spec(workspace)) as sandbox:
        expect(done(await sandbox.make_directory("new", mode=0o700)).created, True, "a new directory")
        expect(done(await sandbox.make_directory("empty", mode=0o750)).created, False, "an old directory")
        problem(await sandbox.make_directory("no/parent"), "not_found", "a directory in nothing")
        answer = await sandbox.make_directory("a.txt")
        expect_true(
            getattr(answer, "kind", None) in {"exists", "not_directory"}, f"a directory on a file: {answer}"
        )
        for name, target in (("l1", "../../etc"), ("l2", "sub"), ("l3", "\udcff")):
            done(await sandbox.make_symlink(name, target=target))
        problem(await sandbox.make_symlink("a.txt", target="x"), "exists", "a link on a file")
    changes = await anyio.to_thread.run_sync(read_changes, sandbox.layer)
    seen = [(change.path, change.mode, change.target) for change in changes]
    wanted = [
        ("empty", 0o750, None),
        ("l1", None, "../../etc"),
        ("l2", None, "sub"),
        ("l3", None, "\udcff"),
        ("new", 0o700, None),
    ]
    expect(seen, wanted, "what was made")


async def check_listing(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Entries come in order of path with their kinds; links are not entered; a cut is marked."""
    async with open_sandbox(spec(workspace)) as sandbox:
        flat = done(await sandbox.list_directory("sub"))
        expect(_seen(flat), [("sub/b.txt", "file"), ("sub/deep", "directory")], "one directory")
        deep = done(await sandbox.list_directory(".", recursive=True))
        paths = [entry.path for entry in deep.entries]
        expect(paths, sorted(paths), "the order")
        expect_true("sub/deep/c.txt" in paths, "a file two levels down is listed")
        expect([path for path in paths if path.startswith("link-to-directory/")], [], "entries behind a link")
        expect(dict(_seen(deep))["link"], "symlink", "a link's kind")
        cut = done(await sandbox.list_directory(".", max_entries=2))
        expect((len(cut.entries), cut.truncated), (2, True), "a cut listing")
        problem(await sandbox.list_directory("a.txt"), "not_directory", "listing a file")
        problem(await sandbox.list_directory("none"), "not_found", "listing nothing")


async def check_odd_names(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Every name that a file system takes can be written, read, listed, and found among the changes."""
    async with open_sandbox(spec(workspace)) as sandbox:
        for name in _ODD_NAMES:
            done(await sandbox.write_file(f"odd/{name}", name.encode("utf-8", "surrogateescape")))
        for name in _ODD_NAMES:
            expect(
                (await _read(sandbox, f"odd/{name}"))[0], name.encode("utf-8", "surrogateescape"), repr(name)
            )
        listing = done(await sandbox.list_directory("odd"))
        expect(
            [entry.path for entry in listing.entries], sorted(f"odd/{name}" for name in _ODD_NAMES), "names"
        )
    changes = await anyio.to_thread.run_sync(read_changes, sandbox.layer)
    expect({change.path for change in changes}, {"odd", *(f"odd/{name}" for name in _ODD_NAMES)}, "changes")


async def check_hidden_and_kept_paths(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Hidden paths read as empty and read-only ones cannot be written by file methods either."""
    async with open_sandbox(
        spec(workspace, hidden=("hidden", "a.txt"), read_only=("kept", "bytes"))
    ) as sandbox:
        expect((await _read(sandbox, "a.txt"))[0], b"", "a hidden file")
        expect(_seen(done(await sandbox.list_directory("hidden"))), [], "a hidden directory")
        expect((await _read(sandbox, "kept/file"))[0], b"kept\n", "a read-only file")
        for path in ("kept/file", "kept/new", "hidden/new"):
            problem(await sandbox.write_file(path, b"x"), "permission", f"writing {path}")
        for path in ("a.txt", "bytes"):
            answer = await sandbox.write_file(path, b"x")
            problem(answer, "permission", f"writing {path}")
    expect(await anyio.to_thread.run_sync(read_changes, sandbox.layer), (), "changes")


async def check_a_full_disk_refuses(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """A write that does not fit changes nothing, and a smaller one still works."""
    limits = ResourceLimits(disk_bytes=4 * MIB)
    async with open_sandbox(spec(workspace, limits=limits)) as sandbox:
        problem(await sandbox.write_file("big", bytes(5 * MIB)), "no_space", "more than the disk")
        problem(await sandbox.read_file("big", max_bytes=1), "not_found", "half a file")
        done(await sandbox.write_file("small", bytes(1024)))
        expect_true(1024 <= await sandbox.used_bytes() <= 4 * MIB, "used bytes tell what is used")


async def check_file_calls_in_flight_together(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Answers go to the call that asked."""
    answers: dict[int, bytes] = {}

    async def call(sandbox: Sandbox, number: int) -> None:
        done(await sandbox.write_file(f"many/{number}", b"%d" % number))
        answers[number] = (await _read(sandbox, f"many/{number}"))[0]

    async with open_sandbox(spec(workspace)) as sandbox:
        done(await sandbox.make_directory("many"))
        async with anyio.create_task_group() as tasks:
            for number in range(32):
                tasks.start_soon(call, sandbox, number)
    expect(answers, {number: b"%d" % number for number in range(32)}, "answers")


async def check_the_users_tree_is_untouched_by_file_calls(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """Writing, removing and changing modes reach the layer alone, which outlives the sandbox."""
    before = await anyio.to_thread.run_sync(fingerprint, workspace)
    async with open_sandbox(spec(workspace)) as sandbox:
        done(await sandbox.write_file("a.txt", b"x"))
        done(await sandbox.remove("sub/b.txt"))
        done(await sandbox.make_directory("empty", mode=0o700))
        done(await sandbox.write_file("sub/deep/c.txt", b"gamma\n"))
    expect(await anyio.to_thread.run_sync(fingerprint, workspace), before, "the user's tree")
    changes = await anyio.to_thread.run_sync(read_changes, sandbox.layer)
    seen = [(change.path, change.change) for change in changes]
    expect(seen, [("a.txt", "modified"), ("empty", "modified"), ("sub/b.txt", "deleted")], "changes")


async def check_changes_can_be_restored(open_sandbox: OpenSandbox, workspace: Path) -> None:
    """What one sandbox left, exported and put into a fresh one, is what that one then leaves."""
    async with open_sandbox(spec(workspace)) as sandbox:
        done(await sandbox.write_file("new/\udcff", bytes(range(256)), mode=0o600))
        done(await sandbox.write_file("run.sh", b"x"))
        done(await sandbox.remove("sub/deep/c.txt"))
        done(await sandbox.remove("sub/deep"))
        done(await sandbox.remove("link"))
        done(await sandbox.make_symlink("link", target="elsewhere"))
        done(await sandbox.remove("a.txt"))
        done(await sandbox.make_directory("a.txt", mode=0o500))
    changes = workspace.parent / "changes"
    manifest = await anyio.to_thread.run_sync(export_changes, sandbox.layer, changes)
    async with open_sandbox(spec(workspace)) as fresh:
        await restore_changes(manifest, fresh)
    expect(await anyio.to_thread.run_sync(read_changes, fresh.layer), manifest.changes, "restored changes")
    expect(len(manifest.changes), 7, "how many paths changed")


async def _read(sandbox: Sandbox, path: str, *, max_bytes: int = 1000) -> tuple[bytes, int]:
    content = done(await sandbox.read_file(path, max_bytes=max_bytes))
    return content.data, content.mode


def _seen(listing: Listing) -> list[tuple[str, str]]:
    return [(entry.path, entry.kind) for entry in listing.entries]


FILE_CHECKS = checks(
    "files",
    check_reading,
    check_writing,
    check_conditional_writing,
    check_times_of_modification,
    check_problems_of_paths,
    check_links_are_not_followed,
    check_removing,
    check_directories_and_links,
    check_listing,
    check_odd_names,
    check_hidden_and_kept_paths,
    check_a_full_disk_refuses,
    check_file_calls_in_flight_together,
    check_the_users_tree_is_untouched_by_file_calls,
    check_changes_can_be_restored,
)

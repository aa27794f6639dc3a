from __future__ import annotations

import os

import anyio
import pytest

from sandboxes.base import ExecRequest, FileContent, FileProblem, FileWritten, ResourceLimits, SandboxSpec
from sandboxes.errors import SandboxDied, SandboxIntegrity, SandboxStartFailed, SandboxUnresponsive
from sandboxes.testing import FakeBackend, FakeSandbox, exec_result, fake_open

pytestmark = pytest.mark.anyio


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("alpha")
    (root / "a.txt").chmod(0o640)
    (root / "sub" / "b.txt").write_text("beta")
    (root / "in").symlink_to("sub")
    (root / "out").symlink_to("/etc/passwd")
    (root / "absolute").symlink_to("/workspace/sub/b.txt")
    return root


@pytest.fixture
def spec(tree):
    return SandboxSpec(kind="bubblewrap", workspace=tree, hidden=("sub",), read_only=("a.txt",))


@pytest.fixture
def free(tree):
    return SandboxSpec(kind="bubblewrap", workspace=tree)


async def test_the_users_tree_is_never_written(free, tree):
    async with fake_open(free) as sandbox:
        written = await sandbox.write_file("a.txt", b"changed")
        read = await sandbox.read_file("a.txt", max_bytes=100)

    assert written == FileWritten(created=False, bytes_written=7, directories_created=0)
    assert read == FileContent(data=b"changed", size=7, mode=0o640, truncated=False)
    assert (tree / "a.txt").read_text() == "alpha"


async def test_the_layer_outlives_the_sandbox(free):
    async with fake_open(free) as sandbox:
        await sandbox.write_file("deep/er/new", b"x")
    assert sandbox.layer.strategy == "copy"
    assert "deep" in os.listdir(sandbox.layer.upper_fd)


@pytest.mark.parametrize(
    ("path", "kind", "target"),
    [
        ("nothing", "not_found", None),
        ("sub", "is_directory", None),
        ("a.txt/x", "not_directory", None),
        ("in", "symlink", "sub"),
        ("in/b.txt", "symlink", "sub/b.txt"),
        ("absolute", "symlink", "sub/b.txt"),
        ("out", "symlink", None),
        ("../x", "outside", None),
        ("/etc/passwd", "outside", None),
        ("x\0y", "invalid_path", None),
        ("", "invalid_path", None),
        ("x" * 5000, "name_too_long", None),
        ("x" * 300, "name_too_long", None),
    ],
)
async def test_a_read_that_cannot_be_done_says_why(free, path, kind, target):
    async with fake_open(free) as sandbox:
        problem = await sandbox.read_file(path, max_bytes=10)

    assert isinstance(problem, FileProblem)
    assert (problem.kind, problem.target) == (kind, target)


async def test_writes_are_refused_with_their_reason(free):
    async with fake_open(free) as sandbox:
        exists = await sandbox.write_file("a.txt", b"", must_not_exist=True)
        changed = await sandbox.write_file("a.txt", b"", expected_sha256="0" * 64)
        parents = await sandbox.write_file("no/such/dir", b"", create_parents=False)
        full = await sandbox.write_file("big", bytes(300 * 1024 * 1024))

    assert [p.kind for p in (exists, changed, parents, full)] == [
        "exists",
        "changed",
        "not_found",
        "no_space",
    ]


async def test_hidden_and_read_only_paths_are_held(spec):
    async with fake_open(spec) as sandbox:
        hidden = await sandbox.read_file("sub/b.txt", max_bytes=10)
        listing = await sandbox.list_directory(".", recursive=True)
        read_only = await sandbox.write_file("a.txt", b"x")

    assert hidden.data == b""
    assert [e.path for e in listing.entries] == ["a.txt", "absolute", "in", "out", "sub"]
    assert read_only.kind == "permission"


async def test_a_mapping_answers_commands(free):
    script = {("true",): exec_result(), ("echo", "x"): exec_result(b"x\n")}
    backend = FakeBackend(script=script)

    async with backend(free) as sandbox:
        known = await sandbox.exec(ExecRequest(argv=("echo", "x")))
        unknown = await sandbox.exec(ExecRequest(argv=("rm", "-rf")))

    assert (known.exit_code, known.output) == (0, b"x\n")
    assert unknown.exit_code == 127
    assert [c.method for c in backend.opened[0].calls] == ["exec", "exec"]


async def test_a_function_answers_commands_and_may_change_files(free):
    def script(sandbox: FakeSandbox, request: ExecRequest):
        (sandbox.root / "made").write_bytes(request.stdin)
        return exec_result(signal=9)

    async with FakeBackend(script=script)(free) as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("make",), stdin=b"in"))
        made = await sandbox.read_file("made", max_bytes=10)

    assert (result.exit_code, result.signal, made.data) == (None, 9, b"in")


@pytest.mark.parametrize(
    ("fault", "error"),
    [("die", SandboxDied), ("integrity", SandboxIntegrity), ("unresponsive", SandboxUnresponsive)],
)
async def test_a_planted_fault_kills_the_sandbox(free, fault, error):
    async with FakeBackend(prepare=lambda fake: fake.plant(fault, on="exec"))(free) as sandbox:
        await sandbox.read_file("a.txt", max_bytes=1)

        with pytest.raises(error):
            await sandbox.exec(ExecRequest(argv=("true",)))
        with pytest.raises(SandboxDied):
            await sandbox.read_file("a.txt", max_bytes=1)


async def test_a_call_that_hangs_ends_with_the_sandbox(free):
    async with fake_open(free) as sandbox:
        sandbox.plant("hang")
        with anyio.move_on_after(0.01) as scope:
            await sandbox.exec(ExecRequest(argv=("true",)))
        assert scope.cancelled_caught

        sandbox.plant("hang")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_dies, sandbox)
            await anyio.lowlevel.checkpoint()
            await sandbox.aclose()


async def _dies(sandbox):
    with pytest.raises(SandboxDied):
        await sandbox.exec(ExecRequest(argv=("true",)))


async def test_a_start_can_fail(free):
    backend = FakeBackend(start_fails=1)

    with pytest.raises(SandboxStartFailed):
        async with backend(free):
            pass
    async with backend(free):
        pass

    assert len(backend.opened) == 1


async def test_links_directories_and_removals(free):
    async with fake_open(free) as sandbox:
        await sandbox.make_directory("new", mode=0o700)
        await sandbox.make_symlink("new/link", target="../a.txt")
        not_empty = await sandbox.remove("new")
        await sandbox.remove("new/link")
        gone = await sandbox.remove("new")
        listing = await sandbox.list_directory(".", max_entries=2)

    assert not_empty.kind == "exists"
    assert gone.path == "new"
    assert listing.truncated
    assert len(listing.entries) == 2


async def test_the_disk_limit_counts_growth_only(tree):
    spec = SandboxSpec(kind="bubblewrap", workspace=tree, limits=ResourceLimits(disk_bytes=10))

    async with fake_open(spec) as sandbox:
        fits = await sandbox.write_file("n", b"0123456789")
        full = await sandbox.write_file("m", b"0")
        used = await sandbox.used_bytes()

    assert isinstance(fits, FileWritten)
    assert full.kind == "no_space"
    assert used == 10


async def test_a_coroutine_answers_commands(free):
    async def script(sandbox: FakeSandbox, request: ExecRequest):
        await anyio.lowlevel.checkpoint()
        return exec_result(request.stdin, exit_code=3)

    async with FakeBackend(script=script)(free) as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("cat",), stdin=b"in"))

    assert (result.exit_code, result.output) == (3, b"in")

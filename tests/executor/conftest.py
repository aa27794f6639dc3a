from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from budgets.remit import parse
from executor.run import open_run
from executor.store import RunStore
from sandboxes.testing import FakeBackend, FakeSandbox, exec_result

ALL_TOOLS = {
    "read_file": 1000,
    "write_file": 1000,
    "patch": 1000,
    "search_files": 1000,
    "list_files": 1000,
    "terminal": 1000,
}


def _remit(**sections):
    """A remit that allows much, changed by whole or part sections."""
    document = {
        "version": 1,
        "task": {"id": "t"},
        "scope": {"workspace": "tree", "read": ["**"], "write": ["**"]},
        "budget": {"tools": ALL_TOOLS, "violations": 1000},
    }
    for name, section in sections.items():
        known = document.get(name)
        document[name] = {**known, **section} if isinstance(known, dict) else section
    return parse(json.dumps(document), source="test")


class Place:
    """A directory with a workspace, a state directory, and fake sandboxes that know no command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = path / "tree"
        self.tree.mkdir()
        self.store = RunStore(path / "state")
        self.backend = FakeBackend(script=lambda sandbox, request: exec_result(b"done\n"))

    def put(self, name: str, content: str | bytes = "") -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    @asynccontextmanager
    async def run(self, contract=None, **options):
        options.setdefault("sandbox_factory", self.backend)
        async with open_run(contract or _remit(), base=self.path, store=self.store, **options) as run:
            yield run

    def records(self, kind=None):
        lines = self.store.latest().journal_path.read_text().splitlines()
        found = [json.loads(line) for line in lines]
        return [record for record in found if kind is None or record["kind"] == kind]

    @property
    def sandbox(self):
        return self.backend.opened[-1]

    def meddle(self, name: str, content: str) -> None:
        """Change a file in the sandbox behind the tools' backs."""
        path = self.sandbox.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def inside(self, name: str) -> bytes:
        return (self.sandbox.root / name).read_bytes()


@pytest.fixture(autouse=True)
def deliberate(no_test_blocks_the_event_loop):
    """Let through what blocks on purpose: fakes use real files, a record is one write to the page cache."""
    fakes = {name for name in dir(FakeSandbox) if not name.startswith("__")} | {"_open", "_dispose"}
    for function in no_test_blocks_the_event_loop.functions.values():
        function.can_block_in("sandboxes/testing.py", fakes)
        function.can_block_in("executor/audit/journal.py", {"_append", "checkpoint"})
        function.can_block_in("executor/answers.py", {"_written"})
        function.can_block_in("tests/executor/conftest.py", {"meddle", "records"})
        # A few names on a tmpfs; many of them are looked at in a thread.
        function.can_block_in("executor/watch.py", {"_paths"})


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def remit():
    return _remit


@pytest.fixture
def codes():
    return lambda outcome: [reason.code for reason in outcome.reasons]

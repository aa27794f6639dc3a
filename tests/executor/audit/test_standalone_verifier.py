"""The script that needs nothing of remit agrees with remit."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from executor.audit.signer import Signer
from executor.audit.verify import verify_journal
from tests.executor.audit.making import append_story, open_journal, seal_run

SCRIPT = Path(__file__).parents[3] / "scripts" / "verify_journal.py"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    return seal_run(tmp_path_factory.mktemp("sealed"))


def run(*arguments):
    command = [sys.executable, "-I", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def script(tmp_path):
    """Check changed lines in this process, to be fast: give back the complaint, or None."""
    module: dict = {"__name__": "standalone"}
    exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), module)

    def check(lines, receipt):
        path = tmp_path / "journal.jsonl"
        path.write_bytes(b"".join(lines))
        try:
            public, size, root, closed = module["check_journal"](path, None)
            module["require"](closed, "incomplete")
            module["check_receipt"](receipt, public, size, root)
        except SystemExit as left:
            return str(left.code)
        return None

    return check


def test_it_uses_nothing_of_remit_and_is_short():
    tree = ast.parse(SCRIPT.read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert {module.split(".")[0] for module in modules} == {"cryptography"}
    assert len(SCRIPT.read_text().splitlines()) < 130


def test_a_real_journal_and_receipt_hold(sealed):
    key = sealed.signer.verifier("remit/key").text

    done = run(sealed.journal, sealed.receipt, "--key", key)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"holds: {len(sealed.lines)} records")
    assert done.stdout.strip().endswith("verdict mixed")


def test_a_long_journal_holds_and_has_the_same_root(tmp_path):
    with open_journal(tmp_path) as journal:
        for _ in range(60):
            append_story(journal)
        journal.seal("finished")

    done = run(journal.path)

    assert verify_journal(journal.path).root in done.stdout


def test_every_line_changed_removed_swapped_doubled_or_cut_is_found(sealed, script):
    lines, last = sealed.lines, len(sealed.lines) - 1
    assert script(lines, sealed.receipt) is None
    for number, line in enumerate(lines):
        before, after = lines[:number], lines[number + 1 :]
        flipped = [
            line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
            for place in range(0, len(line) - 1, 37)
        ]
        changes = [[*before, *after], [*before, line, line, *after], before, [*before, line[:30]]]
        changes += [[*before, bad, *after] for bad in flipped]
        if number < last:
            changes.append([*before, after[0], line, *after[1:]])
        for changed in changes:
            complaint = script(changed, sealed.receipt)

            assert complaint is not None
            assert complaint.startswith("does not hold: ")


def test_another_key_is_found_and_a_bad_journal_exits_1(sealed, tmp_path):
    other = run(sealed.journal, "--key", Signer.generate().verifier("x").text)
    cut = tmp_path / "journal.jsonl"
    cut.write_bytes(b"".join(sealed.lines[:-1]))
    incomplete = run(cut)

    assert (other.returncode, incomplete.returncode) == (1, 1)
    assert other.stderr.strip() == "does not hold: line 1: written under another key"
    assert "incomplete" in incomplete.stderr

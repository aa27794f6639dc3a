"""The journal when the disk, the file system or the process fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread

from executor.audit.errors import JournalUnavailable
from executor.audit.journal import Journal
from executor.audit.signer import Signer
from executor.audit.sink import FileSink
from executor.audit.verify import verify_journal
from tests.executor.audit.making import RUN_ID, FakeClock, decided, ended, open_journal

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--mount", "--propagation", "private"]
if os.geteuid() != 0:
    NAMESPACE += ["--user", "--map-root-user"]


def can_mount() -> bool:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    trial = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False, timeout=30).returncode == 0


def play(scene: str, directory: Path, *, within: list[str]) -> dict:
    command = [*within, sys.executable, "-m", "tests.faults.journal_scenes", scene, str(directory)]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert played.returncode == 0, played.stderr
    return json.loads(played.stdout)


class FaultyFile(FileSink):
    """A file whose operations fail as told: by an error number, or (writes) by going in only in part."""

    write_fault: int | None = None
    writes_only: int | None = None
    truncate_fault: int | None = None
    sync_fault: int | None = None
    reserve_fault: int | None = None
    can_reserve = True

    def write(self, data: bytes) -> int:
        if self.writes_only is not None:
            return super().write(data[: self.writes_only])
        fail(self.write_fault)
        return super().write(data)

    def truncate(self, size: int) -> None:
        fail(self.truncate_fault)
        super().truncate(size)

    def sync(self) -> None:
        fail(self.sync_fault)
        super().sync()

    def reserve(self, start: int, length: int) -> bool:
        fail(self.reserve_fault)
        return self.can_reserve and super().reserve(start, length)


def fail(code: int | None) -> None:
    if code is not None:
        raise OSError(code, os.strerror(code))


@pytest.fixture
def faults():
    """The class of a file whose faults can be switched on while it is in use."""
    return type("File", (FaultyFile,), {})


@pytest.fixture
def signer():
    return Signer.generate()


@pytest.fixture
def journal(tmp_path, signer, faults):
    with open_journal(tmp_path, signer=signer, sink=faults) as journal:
        yield journal


@pytest.mark.skipif(not can_mount(), reason="no private mount namespace can be made here")
def test_on_a_full_disk_calls_are_refused_and_no_record_is_lost(tmp_path):
    seen = play("full_disk", tmp_path, within=NAMESPACE)

    assert seen["calls"] > 5
    assert "No space left" in seen["refusal"]
    assert seen["free_blocks_when_full"] == 0
    assert seen["lost"] == []
    assert seen["closed_ok"]
    assert seen["sealed_size"] == seen["records"]
    assert seen["open_calls"] == 0
    assert seen["still_refused_after_freeing"]
    assert seen["refused_calls"] == 2
    assert seen["resumed_ok"]


def test_a_writer_killed_at_fifty_points_leaves_a_journal_that_can_be_gone_on_with(tmp_path):
    seen = play("killed", tmp_path, within=[])

    assert seen["wrong"] == []
    assert seen["interrupted"] > 0


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_write_that_fails_refuses_the_call_and_leaves_the_journal_whole(journal, faults, code):
    before = journal.path.read_bytes()
    faults.write_fault = code

    with pytest.raises(JournalUnavailable):
        journal.append("call.decided", decided(journal, "c-0"))
    faults.write_fault = None

    assert journal.path.read_bytes() == before
    with pytest.raises(JournalUnavailable):
        journal.append("call.decided", decided(journal, "c-1"))
    assert journal.refused_calls == 2
    journal.seal("finished")
    assert verify_journal(journal.path).ok


def test_a_torn_write_is_taken_back(journal, faults):
    before = journal.path.read_bytes()
    faults.writes_only = 100

    with pytest.raises(JournalUnavailable, match="100 of"):
        journal.append("call.decided", decided(journal, "c-0"))
    faults.writes_only = None

    assert journal.path.read_bytes() == before
    assert journal.open_calls == frozenset()
    journal.seal("finished")
    assert verify_journal(journal.path).ok


def test_a_torn_write_that_cannot_be_taken_back_ends_all_writing_and_is_recovered(
    journal, faults, signer, tmp_path
):
    faults.writes_only, faults.truncate_fault = 100, errno.EIO
    with pytest.raises(JournalUnavailable):
        journal.append("call.decided", decided(journal, "c-0"))
    faults.writes_only = faults.truncate_fault = None

    with pytest.raises(JournalUnavailable):
        journal.seal("finished")
    journal.close()
    again, recovered = Journal.resume(tmp_path, signer=signer, run_id=RUN_ID, clock=FakeClock())
    with again:
        again.seal("finished")

    assert recovered.torn_bytes == 100
    assert verify_journal(journal.path).ok


def test_a_call_that_ran_still_gets_its_end_after_decisions_are_refused(journal, faults):
    journal.append("call.decided", decided(journal, "c-0"))
    faults.reserve_fault = errno.ENOSPC
    large = {"command": "x", "more": "y" * 300_000}
    body = {**decided(journal, "c-1", **large), "reasons": [{"code": "x", "detail": "y" * 300_000}]}

    with pytest.raises(JournalUnavailable, match="hold back"):
        journal.append("call.decided", body)
    journal.append("call.ended", ended("c-0"))
    journal.seal("finished")

    assert verify_journal(journal.path).ok
    assert verify_journal(journal.path).open_calls == ()


def test_no_journal_is_begun_where_nothing_can_be_held_back(tmp_path, faults):
    faults.reserve_fault = errno.ENOSPC

    with pytest.raises(JournalUnavailable):
        open_journal(tmp_path, sink=faults)


def test_a_file_system_that_cannot_hold_space_back_is_said_so(tmp_path, faults):
    faults.can_reserve = False

    with open_journal(tmp_path, sink=faults) as journal:
        journal.append("call.decided", decided(journal, "c-0"))
        journal.seal("finished")

    first = json.loads(journal.path.read_bytes().splitlines()[0])
    assert first["body"]["journal"]["reserve"] == "none"
    assert verify_journal(journal.path).ok


@pytest.mark.anyio
async def test_a_failed_sync_refuses_everything_after_it(tmp_path, faults):
    opening = partial(open_journal, tmp_path, durability="disk", sink=faults)
    journal = await to_thread.run_sync(opening)
    with journal:
        journal.append("call.decided", decided(journal, "c-0"))
        faults.sync_fault = errno.EIO

        with pytest.raises(JournalUnavailable, match="durable"):
            await journal.flush()
        faults.sync_fault = None

        with pytest.raises(JournalUnavailable):
            await journal.flush()
        with pytest.raises(JournalUnavailable):
            journal.append("call.ended", ended("c-0"))

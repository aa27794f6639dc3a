"""What happens to a journal on a full disk and under SIGKILL, played in a process of its own.

Run as ``python -m tests.faults.journal_scenes SCENE DIRECTORY``; prints what was seen as JSON.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from executor.audit.errors import JournalUnavailable
from executor.audit.journal import Journal
from executor.audit.signer import Signer
from executor.audit.verify import verify_journal
from tests.executor.audit.making import RUN_ID, FakeClock, decided, ended, open_journal

IN_FLIGHT = 4


def full_disk(directory: Path) -> dict:
    """Fill a 64 KiB file system with records while a few calls are always under way."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(directory)], check=True)
    filler = directory / "filler"
    filler.write_bytes(b"x" * 12 * 1024)
    signer = Signer.generate()
    journal = open_journal(directory, signer=signer)
    written, calls, refusal = _until_refused(journal)
    filling = directory / "full"
    with suppress(OSError):
        filling.write_bytes(b"x" * 64 * 1024)
    free = os.statvfs(directory).f_bavail
    for call in sorted(journal.open_calls):
        written.append(journal.append("call.ended", ended(call)).seq)
    filling.unlink()
    filler.unlink()
    still_refused = _refused(journal, "c-late")
    written.append(journal.append("verdict", {"outcome": "unproven", "reasons": []}).seq)
    seal = journal.seal("suspended")
    journal.close()
    closed = verify_journal(directory / "journal.jsonl")
    again, recovered = Journal.resume(directory, signer=signer, run_id=RUN_ID, clock=FakeClock())
    again.append("call.decided", decided(again, "c-after", action="deny"))
    again.seal("finished")
    again.close()
    return {
        "calls": calls,
        "refusal": refusal,
        "free_blocks_when_full": free,
        "still_refused_after_freeing": still_refused,
        "lost": [seq for seq in written if seq >= recovered.records],
        "records": closed.records,
        "closed_ok": closed.ok,
        "sealed_size": seal.checkpoint.size,
        "open_calls": len(closed.open_calls),
        "refused_calls": _last_body(recovered)["refused_calls"],
        "resumed_ok": verify_journal(directory / "journal.jsonl").ok,
    }


def killed(directory: Path) -> dict:
    """Kill a writer at 50 random points, five times the same journal, which is taken up again each time."""
    generator = random.Random(20261122)
    signer = Signer.generate()
    acknowledged = mmap.mmap(-1, 16)
    wrong: list[str] = []
    torn = interrupted = 0
    base = directory
    for round_number in range(50):
        if round_number % 5 == 0:
            directory = base / str(round_number)
            directory.mkdir(mode=0o700)
            open_journal(directory, signer=signer).close()
        _kill_one(directory, signer, acknowledged, generator, round_number)
        journal, recovered = Journal.resume(directory, signer=signer, run_id=RUN_ID, clock=FakeClock())
        with journal:
            seq, number = struct.unpack("qq", acknowledged[:])
            wrong += _judge(recovered, seq, number, round_number)
            torn += recovered.torn_bytes > 0
            interrupted += len(recovered.open_calls) > 0
            for call in recovered.open_calls:
                journal.append("call.ended", ended(call.call))
        if not verify_journal(directory / "journal.jsonl").intact:
            wrong.append(f"round {round_number}: not intact")
    return {"wrong": wrong, "torn": torn, "interrupted": interrupted}


def _kill_one(
    directory: Path, signer: Signer, acknowledged: mmap.mmap, generator: random.Random, round_number: int
) -> None:
    acknowledged[:] = struct.pack("qq", -1, -1)
    path = directory / "journal.jsonl"
    enough = path.stat().st_size + generator.randrange(1_000, 16_000)
    child = os.fork()
    if child == 0:
        _write_for_ever(directory, signer, acknowledged, round_number)
    deadline = time.monotonic() + 60
    while path.stat().st_size < enough and time.monotonic() < deadline:
        time.sleep(generator.uniform(0, 0.001))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _write_for_ever(directory: Path, signer: Signer, acknowledged: mmap.mmap, round_number: int) -> None:
    journal, _ = Journal.resume(directory, signer=signer, run_id=RUN_ID, clock=FakeClock())
    number = 0
    while True:
        call = f"c-{round_number}-{number}"
        seq = journal.append("call.decided", decided(journal, call)).seq
        acknowledged[:] = struct.pack("qq", seq, 2 * number)
        seq = journal.append("call.ended", ended(call)).seq
        acknowledged[:] = struct.pack("qq", seq, 2 * number + 1)
        number += 1


def _judge(recovered, seq: int, number: int, round_number: int) -> list[str]:
    """An acknowledged record is there; the open call is the last acknowledged one or not acknowledged yet."""
    found = [call.call for call in recovered.open_calls]
    expected: list[list[str]] = [[f"c-{round_number}-{number // 2}"], []]
    if number % 2:
        expected = [[], [f"c-{round_number}-{number // 2 + 1}"]]
    if number == -1:
        expected = [[], [f"c-{round_number}-0"]]
    problems = []
    if recovered.records <= seq:
        problems.append(f"round {round_number}: record {seq} was acknowledged and is lost")
    if found not in expected:
        problems.append(f"round {round_number}: open calls {found}, expected one of {expected}")
    return problems


def _until_refused(journal: Journal) -> tuple[list[int], int, str]:
    """Begin calls and end each when four are under way, until a new one is refused."""
    written: list[int] = []
    for number in range(1000):
        try:
            written.append(journal.append("call.decided", decided(journal, f"c-{number}")).seq)
        except JournalUnavailable as error:
            return written, number, str(error)
        if len(journal.open_calls) > IN_FLIGHT:
            written.append(journal.append("call.ended", ended(f"c-{number - IN_FLIGHT}")).seq)
    raise AssertionError("the disk never became full")


def _refused(journal: Journal, call: str) -> bool:
    try:
        journal.append("call.decided", decided(journal, call))
    except JournalUnavailable:
        return True
    return False


def _last_body(recovered) -> dict:
    return list(recovered.replay())[-1].body


if __name__ == "__main__":
    scene = {"full_disk": full_disk, "killed": killed}[sys.argv[1]]
    print(json.dumps(scene(Path(sys.argv[2]))))

from __future__ import annotations

import json
import random
import threading
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import anyio
import pytest
from anyio import to_thread

from executor.audit.canonical import canonical
from executor.audit.chain import line_hash
from executor.audit.errors import (
    JournalClosed,
    JournalDamaged,
    JournalExists,
    JournalLocked,
    JournalUnavailable,
    RecordRefused,
)
from executor.audit.journal import CHECKPOINT_EVERY, Journal
from executor.audit.reader import read_records
from executor.audit.record import parse_body
from executor.audit.signer import Signer
from executor.audit.sink import FileSink
from executor.audit.verify import verify_journal
from tests.executor.audit.making import RUN_ID, FakeClock, append_story, decided, ended, open_journal


@pytest.fixture
def signer():
    return Signer.generate()


@pytest.fixture
def journal(tmp_path, signer):
    with open_journal(tmp_path, signer=signer) as journal:
        yield journal


def resume(directory, signer, **more):
    return Journal.resume(directory, signer=signer, **{"run_id": RUN_ID, "clock": FakeClock(), **more})


def lines_of(journal):
    return [json.loads(line) for line in journal.path.read_bytes().splitlines()]


def test_each_record_is_one_canonical_line_that_names_the_one_before(journal):
    append_story(journal)
    journal.seal("finished")

    before = "0" * 64
    for seq, line in enumerate(journal.path.read_bytes().split(b"\n")[:-1]):
        record = json.loads(line)
        assert canonical(record) == line
        assert (record["seq"], record["prev"], record["run"], record["v"]) == (seq, before, RUN_ID, 1)
        before = line_hash(line)


def test_every_kind_that_is_written_has_the_documented_body(journal, tmp_path, signer):
    append_story(journal)
    journal.seal("suspended")
    journal.close()
    again, _ = resume(tmp_path, signer)
    again.seal("finished", reason="done")
    again.close()

    kinds = set()
    for record in read_records(journal.path):
        parse_body(record.kind, record.body)
        kinds.add(record.kind)

    assert kinds >= {"run.opened", "run.resumed", "sandbox.opened", "call.decided", "call.ended", "violation"}
    assert kinds >= {"route.noted", "workspace.changes", "check.ended", "checkpoint", "verdict", "run.closed"}


def test_append_says_where_the_record_is_and_what_the_next_one_names(journal):
    appended = journal.append("call.decided", decided(journal, "c-0"))
    journal.append("call.ended", ended("c-0"))

    assert lines_of(journal)[appended.seq]["kind"] == "call.decided"
    assert lines_of(journal)[appended.seq + 1]["prev"] == appended.hash


def test_text_that_is_not_utf_8_is_kept_exactly_and_the_record_is_marked(journal):
    path = b"caf\xe9/\\x".decode("utf-8", "surrogateescape")

    journal.append("violation", {"code": "scope.outside", "detail": path})

    assert lines_of(journal)[-1]["escaped"] is True
    assert "caf\\xe9" in lines_of(journal)[-1]["body"]["detail"]
    assert list(read_records(journal.path))[-1].body["detail"] == path


def test_a_backslash_in_ordinary_text_is_left_alone(journal):
    journal.append("violation", {"code": "scope.outside", "detail": "a\\xe9"})

    assert "escaped" not in lines_of(journal)[-1]
    assert list(read_records(journal.path))[-1].body["detail"] == "a\\xe9"


@pytest.mark.parametrize(
    "value", [1.5, 2**53, b"bytes", {1: 2}, {1: "\udcff"}, "x" * 9_000_000], ids=lambda value: repr(value)[:8]
)
def test_a_body_that_has_no_canonical_form_is_refused_and_nothing_is_written(journal, value):
    before = journal.path.read_bytes()

    with pytest.raises(RecordRefused):
        journal.append("violation", {"code": "x", "detail": value})

    assert journal.path.read_bytes() == before
    journal.append("violation", {"code": "x", "detail": "y"})
    assert verify_journal(journal.path).intact


def test_checkpoints_come_by_themselves(journal):
    for number in range(CHECKPOINT_EVERY):
        journal.append("call.ended", ended(f"c-{number}"))

    checkpoints = [record for record in lines_of(journal) if record["kind"] == "checkpoint"]
    assert [record["seq"] for record in checkpoints] == [1, 2 + CHECKPOINT_EVERY]
    assert verify_journal(journal.path).signed_size == 2 + CHECKPOINT_EVERY


def test_nothing_follows_the_closing_record(journal):
    seal = journal.seal("finished")

    with pytest.raises(JournalClosed):
        journal.append("violation", {"code": "x", "detail": "y"})
    assert journal.seal("finished") == seal
    assert journal.checkpoint().size == journal.size == seal.checkpoint.size


def test_a_closed_file_takes_nothing(journal):
    journal.close()
    journal.close()

    with pytest.raises(JournalUnavailable):
        journal.append("violation", {"code": "x", "detail": "y"})


def test_what_was_held_back_is_given_back_at_the_end(tmp_path):
    with open_journal(tmp_path) as journal:
        held = journal.path.stat().st_blocks
        journal.seal("finished")

    status = journal.path.stat()
    assert held * 512 > status.st_size + 16 * 1024
    assert status.st_blocks * 512 <= status.st_size + 4096


def test_files_are_for_their_owner_alone(journal, tmp_path):
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_second_journal_in_the_same_directory_is_refused(journal, tmp_path):
    with pytest.raises(JournalExists):
        open_journal(tmp_path)


def test_of_two_writers_at_once_one_is_refused_a_hundred_times(tmp_path, signer):
    open_journal(tmp_path, signer=signer).close()

    for _ in range(100):
        start, done = threading.Barrier(2), threading.Barrier(2)
        answers = []

        def take(start=start, done=done, answers=answers):
            start.wait()
            try:
                journal, _ = resume(tmp_path, signer)
            except JournalLocked as error:
                answers.append(str(error))
                done.wait()
            else:
                answers.append("writing")
                done.wait()
                journal.close()

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused, writing = sorted(answers)
        assert writing == "writing"
        assert refused.endswith("another process is writing this journal")

    assert verify_journal(tmp_path / "journal.jsonl").intact


def test_of_two_creators_at_once_one_is_refused(tmp_path, signer):
    for number in range(100):
        directory = tmp_path / str(number)
        directory.mkdir()
        start = threading.Barrier(2)
        answers = []

        def make(start=start, directory=directory, answers=answers):
            start.wait()
            try:
                answers.append(open_journal(directory, signer=signer))
            except (JournalExists, JournalLocked) as error:
                answers.append(error)

        threads = [threading.Thread(target=make) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made = [answer for answer in answers if isinstance(answer, Journal)]
        assert len(made) == 1
        made[0].close()


def test_a_wall_clock_that_steps_back_reorders_nothing(tmp_path, signer):
    clock = FakeClock()
    journal = open_journal(tmp_path, signer=signer, clock=clock)
    clock.pass_seconds(5)
    journal.append("call.ended", ended("c-0"))
    clock.now -= timedelta(days=1)
    clock.seconds += 1
    journal.append("call.ended", ended("c-1"))
    journal.seal("finished")
    journal.close()

    one, two = list(read_records(journal.path))[2:4]
    assert (one.elapsed_us, two.elapsed_us) == (5_000_000, 6_000_000)
    assert two.ts < one.ts
    assert verify_journal(journal.path).ok


def test_a_counting_clock_that_breaks_never_takes_elapsed_time_back(tmp_path):
    clock = FakeClock()
    with open_journal(tmp_path, clock=clock) as journal:
        generator = random.Random(7)
        for number in range(200):
            clock.seconds = generator.choice(
                [generator.uniform(-1e6, 1e6), float("nan"), float("inf"), -float("inf")]
            )
            journal.append("call.ended", ended(f"c-{number}"))
        journal.seal("finished")

    elapsed = [record.elapsed_us for record in read_records(journal.path)]
    assert elapsed == sorted(elapsed)
    assert verify_journal(journal.path).ok


def test_time_labels_are_in_utc_whatever_the_clock_s_zone(tmp_path):
    clock = FakeClock(now=datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))))
    with open_journal(tmp_path, clock=clock) as journal:
        label = lines_of(journal)[0]["ts"]

    assert label == "2025-12-31T23:30:00.000000Z"
    assert clock.now.astimezone(UTC).isoformat().startswith(label[:19])


def test_a_journal_goes_on_where_a_dead_process_left_it(tmp_path, signer):
    clock = FakeClock()
    dead = open_journal(tmp_path, signer=signer, clock=clock, opened={"remit": "sha256:" + "0" * 64})
    for call in ("c-0", "c-1", "c-2"):
        dead.append("call.decided", decided(dead, call))
    dead.append("call.ended", ended("c-1"))
    clock.pass_seconds(30)
    dead.append("call.decided", decided(dead, "c-3", action="deny"))
    dead.close()

    journal, recovered = resume(tmp_path, signer, clock=FakeClock(seconds=-5.0))
    with journal:
        assert [call.call for call in recovered.open_calls] == ["c-0", "c-2"]
        assert recovered.open_calls[0].client_call == "client-c-0"
        assert recovered.elapsed_seconds == 30
        assert journal.elapsed_seconds == 30
        assert journal.open_calls == {"c-0", "c-2"}
        assert [record.kind for record in recovered.replay()][:2] == ["run.opened", "checkpoint"]
        assert len(list(recovered.replay())) == recovered.records == 7
        journal.append("call.ended", ended("c-0"))
        journal.seal("finished")

    verification = verify_journal(tmp_path / "journal.jsonl")
    assert verification.ok
    assert [call.call for call in verification.open_calls] == ["c-2"]


def test_a_torn_last_line_is_cut_off_and_noted(tmp_path, signer):
    open_journal(tmp_path, signer=signer).close()
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"body":{"call":"c-')

    assert verify_journal(path).problems[0].code == "line.torn"
    journal, recovered = resume(tmp_path, signer)
    with journal:
        journal.seal("finished")

    assert recovered.torn_bytes == 19
    assert path.read_bytes().startswith(whole)
    assert lines_of(journal)[2]["body"]["torn_bytes"] == 19
    assert verify_journal(path).ok


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:3] + lines[4:],
        lambda lines: [*lines[:3], lines[3].replace(b'"ok"', b'"no"'), *lines[4:]],
        lambda lines: [*lines[:3], b"\x00" * 100 + b"\n", *lines[3:]],
        lambda lines: [],
        lambda lines: lines[:1],
    ],
    ids=["removed", "edited", "zeros", "empty", "cut below the kept checkpoint"],
)
def test_a_damaged_journal_is_not_gone_on_with_and_not_touched(tmp_path, signer, damage):
    with open_journal(tmp_path, signer=signer) as journal:
        for call in ("c-0", "c-1"):
            journal.append("call.decided", decided(journal, call))
            journal.append("call.ended", ended(call))
        journal.checkpoint()
    damaged = b"".join(damage(journal.path.read_bytes().splitlines(keepends=True)))
    journal.path.write_bytes(damaged)

    with pytest.raises(JournalDamaged):
        resume(tmp_path, signer)

    assert journal.path.read_bytes() == damaged


def test_a_journal_of_another_key_or_run_is_not_gone_on_with(tmp_path, signer):
    open_journal(tmp_path, signer=signer).close()

    with pytest.raises(JournalDamaged):
        resume(tmp_path, Signer.generate())
    with pytest.raises(JournalDamaged):
        resume(tmp_path, signer, run_id="run-2")
    (tmp_path / "checkpoint").write_text("nonsense")
    with pytest.raises(JournalDamaged):
        resume(tmp_path, signer)


def test_a_finished_run_is_not_gone_on_with_and_a_suspended_one_is(tmp_path, signer):
    with open_journal(tmp_path, signer=signer) as journal:
        journal.seal("suspended")
    journal, recovered = resume(tmp_path, signer)
    with journal:
        journal.seal("finished")

    assert recovered.suspended
    with pytest.raises(JournalClosed):
        resume(tmp_path, signer)
    assert verify_journal(tmp_path / "journal.jsonl").ok


def test_a_journal_whose_file_is_swapped_while_it_is_opened_is_refused(tmp_path, signer, monkeypatch):
    open_journal(tmp_path, signer=signer).close()
    path = tmp_path / "journal.jsonl"
    (tmp_path / "link").symlink_to(path)
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")

    with pytest.raises(Exception, match="cannot be opened"):
        resume(tmp_path, signer)


class CountingSink(FileSink):
    """Counts syncs, and lets them wait for a permit so that others queue up behind."""

    syncs = 0
    permit: threading.Event | None = None

    def sync(self) -> None:
        type(self).syncs += 1
        if self.permit is not None:
            assert self.permit.wait(30)
        super().sync()


@pytest.mark.anyio
async def test_waiting_callers_share_a_sync(tmp_path, signer):
    sink = type("Sink", (CountingSink,), {"permit": None})
    journal = await to_thread.run_sync(partial(open_journal, tmp_path, durability="disk", sink=sink))
    with journal:
        sink.syncs, sink.permit = 0, threading.Event()
        async with anyio.create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(append_and_flush, journal, number)
            await anyio.wait_all_tasks_blocked()
            sink.permit.set()
        shared = sink.syncs
        await journal.flush()

        assert 1 <= shared <= 2
        assert sink.syncs == shared


@pytest.mark.anyio
async def test_without_a_disk_policy_nothing_is_synced(tmp_path):
    sink = type("Sink", (CountingSink,), {})
    journal = await to_thread.run_sync(partial(open_journal, tmp_path, sink=sink))
    with journal:
        await append_and_flush(journal, 0)

    assert sink.syncs == 0


async def append_and_flush(journal, number):
    journal.append("call.ended", ended(f"c-{number}"))
    await journal.flush()

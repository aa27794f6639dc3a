"""Every line of a journal, changed in every way: the check finds it and names the first bad record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from executor.audit.canonical import canonical
from executor.audit.chain import Tree, line_hash
from executor.audit.checkpoint import sign_checkpoint
from executor.audit.journal import Journal
from executor.audit.receipt import sign, write_receipt
from executor.audit.signer import Signer
from executor.audit.verify import verify_journal, verify_receipt
from tests.executor.audit.making import (
    FakeClock,
    append_story,
    decided,
    ended,
    make_statement,
    open_journal,
    seal_run,
)

LINES = 17


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    run = seal_run(tmp_path_factory.mktemp("sealed"))
    assert len(run.lines) == LINES
    return run


@pytest.fixture
def changed(sealed, tmp_path):
    """Write lines as the journal of a copy and check it against the receipt."""

    def check(lines, *, receipt=True, **more):
        path = tmp_path / "journal.jsonl"
        path.write_bytes(b"".join(lines))
        return verify_journal(path, receipt=sealed.receipt if receipt else None, **more)

    return check


def first(verification):
    assert not verification.ok
    assert not verification.intact
    return verification.problems[0]


def rechained(lines, start):
    """Lines whose links are right again from ``start`` on, as one without the key can make them."""
    out = list(lines[:start])
    for seq, line in enumerate(lines[start:], start=start):
        record = json.loads(line)
        record["seq"], record["prev"] = seq, line_hash(out[-1][:-1]) if out else "0" * 64
        out.append(canonical(record) + b"\n")
    return out


def test_an_untouched_journal_is_whole(changed, sealed):
    verification = changed(sealed.lines)

    assert verification.ok
    assert verification.complete
    assert verification.signed_size == LINES
    assert verification.root == sealed.seal.checkpoint.root.hex()


@pytest.mark.parametrize("number", range(LINES))
def test_a_flipped_byte_anywhere_in_a_line_is_found_there(changed, sealed, number):
    line = sealed.lines[number]
    for place in range(0, len(line) - 1, 7):
        for bit in (0x01, 0x20):
            flipped = line[:place] + bytes([line[place] ^ bit]) + line[place + 1 :]

            problem = first(changed([*sealed.lines[:number], flipped, *sealed.lines[number + 1 :]]))

            assert (problem.seq, problem.last) == (number, None), (place, problem)


@pytest.mark.parametrize("number", range(LINES))
def test_a_flipped_newline_is_found(changed, sealed, number):
    glued = sealed.lines[number][:-1] + b"\x0b"

    problem = first(changed([*sealed.lines[:number], glued, *sealed.lines[number + 1 :]]))

    assert problem.seq == number


@pytest.mark.parametrize("number", range(LINES))
def test_a_removed_line_is_found_where_it_was(changed, sealed, number):
    problem = first(changed(sealed.lines[:number] + sealed.lines[number + 1 :]))

    assert (problem.seq, problem.last) == (number, None)


@pytest.mark.parametrize("number", range(LINES - 1))
def test_two_swapped_lines_are_found_at_the_first(changed, sealed, number):
    one, two = sealed.lines[number : number + 2]

    problem = first(changed([*sealed.lines[:number], two, one, *sealed.lines[number + 2 :]]))

    assert (problem.seq, problem.last) == (number, None)


@pytest.mark.parametrize("number", range(LINES + 1))
def test_an_inserted_line_with_a_right_looking_hash_is_found(changed, sealed, number):
    forged = json.loads(sealed.lines[3])
    forged["seq"] = number
    forged["prev"] = line_hash(sealed.lines[number - 1][:-1]) if number else "0" * 64
    lines = [*sealed.lines[:number], canonical(forged) + b"\n", *sealed.lines[number:]]

    problem = first(changed(lines))

    assert (problem.seq, problem.last) == (number, None)


@pytest.mark.parametrize("number", range(LINES))
def test_a_duplicated_line_is_found(changed, sealed, number):
    problem = first(changed([*sealed.lines[: number + 1], *sealed.lines[number:]]))

    assert problem.seq in (number, number + 1)


@pytest.mark.parametrize("number", range(LINES))
def test_a_cut_tail_is_found_by_the_receipt(changed, sealed, number):
    verification = changed(sealed.lines[:number])

    assert first(verification).seq == number
    assert not verification.complete


@pytest.mark.parametrize("number", range(1, LINES))
def test_a_line_cut_in_the_middle_is_found_by_the_receipt(changed, sealed, number):
    problem = first(changed([*sealed.lines[:number], sealed.lines[number][:40]]))

    assert problem.seq == number


@pytest.mark.parametrize("number", range(LINES))
def test_a_line_rewritten_with_every_later_link_made_right_is_found_by_the_signature(changed, sealed, number):
    record = json.loads(sealed.lines[number])
    record["ts"] = "2020-01-01T00:00:00.000000Z"
    lines = [*sealed.lines[:number], canonical(record) + b"\n", *sealed.lines[number + 1 :]]

    problem = first(changed(rechained(lines, number + 1)))

    assert problem.seq is not None
    assert problem.seq <= number <= (problem.seq if problem.last is None else problem.last)


def test_a_line_inserted_with_every_later_link_made_right_is_found_by_the_signature(changed, sealed):
    lines = rechained([*sealed.lines[:13], sealed.lines[3], *sealed.lines[13:]], 13)

    problem = first(changed(lines))

    assert problem.seq <= 13


def test_without_a_receipt_a_cut_tail_still_lacks_the_closing_record(changed, sealed):
    for number in range(1, LINES):
        verification = changed(sealed.lines[:number], receipt=False)

        assert not verification.ok
        assert not verification.complete
        assert verification.problems[-1].code == "journal.incomplete"
        assert verification.intact
        assert not verification.anchored


def test_an_older_copy_is_found_by_the_receipt(tmp_path):
    signer = Signer.generate()
    with open_journal(tmp_path, signer=signer) as journal:
        journal.append("call.decided", decided(journal, "c-0"))
        journal.seal("suspended")
    older = (tmp_path / "journal.jsonl").read_bytes()
    journal, _ = Journal.resume(tmp_path, signer=signer, run_id="run-1", clock=FakeClock())
    with journal:
        seal = journal.seal("finished")
    checkpoint = tmp_path / "kept"
    checkpoint.write_text(seal.checkpoint.text)
    size = older.count(b"\n")
    (tmp_path / "journal.jsonl").write_bytes(older)

    alone = verify_journal(tmp_path / "journal.jsonl")
    anchored = verify_journal(tmp_path / "journal.jsonl", checkpoints=[checkpoint])

    assert alone.ok
    assert first(anchored).code == "journal.short"
    assert first(anchored).seq == size


def test_a_journal_replaced_whole_under_another_key_is_found(changed, sealed, tmp_path):
    forged = seal_run(mkdir(tmp_path / "forged"))
    pinned = sealed.signer.verifier("remit/key").text

    by_receipt = changed(forged.lines)
    by_key = changed(forged.lines, receipt=False, key=pinned)
    alone = changed(forged.lines, receipt=False)

    assert (first(by_receipt).code, first(by_receipt).seq) == ("key.other", 0)
    assert (first(by_key).code, first(by_key).seq) == ("key.other", 0)
    assert alone.ok
    assert not alone.anchored


def test_journal_and_receipt_replaced_under_another_key_are_found_by_the_pinned_key(sealed, tmp_path):
    forged = seal_run(mkdir(tmp_path / "forged"))
    pinned = sealed.signer.verifier("remit/key").text

    verification = verify_receipt(forged.receipt, journal=forged.journal, key=pinned)

    assert [problem.code for problem in verification.problems] == ["receipt.key"]
    assert verify_receipt(forged.receipt, journal=forged.journal).ok
    assert not verify_receipt(forged.receipt, journal=forged.journal).key_pinned


def test_a_journal_of_another_run_under_the_same_key_is_found(changed, sealed, tmp_path):
    other = seal_run(mkdir(tmp_path / "other"), signer=sealed.signer, run_id="run-2")

    assert not changed(other.lines).intact


def test_two_checkpoints_of_the_same_size_and_different_roots_are_a_conflict(sealed, tmp_path):
    real = sealed.seal.checkpoint
    other = sign_checkpoint(sealed.signer, origin=real.origin, size=real.size, root=b"\x07" * 32)
    paths = [tmp_path / "one", tmp_path / "two"]
    for path, checkpoint in zip(paths, (real, other), strict=True):
        path.write_text(checkpoint.text)

    verification = verify_journal(sealed.journal, checkpoints=paths)

    assert real.contradicts(other)
    assert {"checkpoint.conflict", "checkpoint.root"} <= {problem.code for problem in verification.problems}


def test_records_after_the_sealed_ones_are_found(changed, sealed):
    record = json.loads(sealed.lines[3])
    lines = rechained([*sealed.lines, canonical(record) + b"\n"], LINES)

    assert first(changed(lines)).seq == LINES
    assert first(changed(lines, receipt=False)).code == "record.after_close"


def test_checkpoints_made_anew_by_another_key_are_found_without_a_receipt(changed, sealed):
    forger, tree, lines = Signer.generate(), Tree(), []
    for line in sealed.lines:
        record = json.loads(rechained([*lines, line], len(lines))[-1])
        if record["kind"] == "checkpoint":
            forged = sign_checkpoint(forger, origin="remit/journals/run-1", size=tree.size, root=tree.root())
            record["body"].update(root=forged.root.hex(), text=forged.text)
        elif record["kind"] == "violation":
            record["body"]["detail"] = "nothing of note"
        lines.append(canonical(record) + b"\n")
        tree.append(lines[-1][:-1])

    problem = first(changed(lines, receipt=False))

    assert (problem.code, problem.seq) == ("checkpoint.signature", 1)


def test_a_kept_checkpoint_of_another_key_anchors_nothing(sealed, tmp_path):
    real = sealed.seal.checkpoint
    other = sign_checkpoint(Signer.generate(), origin=real.origin, size=real.size, root=real.root)
    (tmp_path / "kept").write_text(other.text)

    verification = verify_journal(sealed.journal, checkpoints=[tmp_path / "kept"])

    assert first(verification).code == "checkpoint.signature"


def test_a_run_gone_on_with_after_its_receipt_is_found_by_the_receipt(tmp_path):
    signer = Signer.generate()
    with open_journal(tmp_path, signer=signer) as journal:
        append_story(journal)
        seal = journal.seal("suspended")
    write_receipt(sign(make_statement(seal), signer), tmp_path / "receipt.json")
    again, _ = Journal.resume(tmp_path, signer=signer, run_id="run-1", clock=FakeClock())
    with again:
        again.seal("finished")

    problem = first(verify_journal(again.path, receipt=tmp_path / "receipt.json"))

    assert (problem.code, problem.seq) == ("journal.long", seal.checkpoint.size)


def test_a_record_that_gives_itself_another_number_is_named(changed, sealed):
    misnumbered = canonical({**json.loads(sealed.lines[5]), "seq": 99}) + b"\n"

    problem = first(changed([*sealed.lines[:5], misnumbered, *sealed.lines[6:]], receipt=False))

    assert (problem.code, problem.seq) == ("record.seq", 5)


def test_a_kept_checkpoint_that_is_none_is_said_so(sealed, tmp_path):
    (tmp_path / "kept").write_text("nothing of the kind")

    verification = verify_journal(sealed.journal, checkpoints=[tmp_path / "kept"])

    assert first(verification).code == "checkpoint.form"


def test_elapsed_time_that_goes_back_is_named(tmp_path):
    clock = FakeClock()
    with open_journal(tmp_path, clock=clock) as journal:
        clock.pass_seconds(9)
        journal.append("call.ended", ended("c-0"))
        journal.append("call.ended", ended("c-1"))
        journal.seal("finished")
    lines = journal.path.read_bytes().splitlines(keepends=True)
    back = canonical({**json.loads(lines[3]), "elapsed_us": 1}) + b"\n"
    journal.path.write_bytes(b"".join(rechained([*lines[:3], back, *lines[4:]], 3)))

    problem = first(verify_journal(journal.path))

    assert (problem.code, problem.seq) == ("record.elapsed", 3)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":1}',
        b"[]",
        b"",
        b"\xff",
        b"null",
        b'{"body":{},"body":{}}',
    ],
)
def test_a_line_that_is_no_record_is_named(changed, sealed, line):
    problem = first(changed([*sealed.lines[:5], line + b"\n", *sealed.lines[5:]], receipt=False))

    assert (problem.code, problem.seq) == ("record.form", 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("seq", "5"),
        ("elapsed_us", -1),
        ("kind", "call.invented"),
        ("ts", "yesterday"),
        ("escaped", False),
    ],
)
def test_a_line_with_a_field_of_another_form_is_named(changed, sealed, field, value):
    record = {**json.loads(sealed.lines[5]), field: value}

    problem = first(changed([*sealed.lines[:5], canonical(record) + b"\n", *sealed.lines[6:]], receipt=False))

    assert problem.seq == 5


def test_a_second_key_in_an_object_is_not_canonical(changed, sealed):
    doubled = sealed.lines[5].replace(b'"body":{', b'"body":{"call":"other",', 1)

    problem = first(changed([*sealed.lines[:5], doubled, *sealed.lines[6:]], receipt=False))

    assert (problem.code, problem.seq) == ("record.form", 5)


def mkdir(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_file_that_is_empty_is_incomplete(tmp_path, sealed):
    path = tmp_path / "journal.jsonl"
    path.touch()

    verification = verify_journal(path, receipt=sealed.receipt)

    assert first(verification).code == "journal.short"


def test_every_body_is_as_documented_when_asked(sealed, tmp_path):
    shutil.copy(sealed.journal, tmp_path / "journal.jsonl")
    with open_journal(mkdir(tmp_path / "odd")) as journal:
        append_story(journal)
        journal.append("call.ended", {"call": "c-9", "status": "splendid"})
        journal.seal("finished")

    assert verify_journal(sealed.journal, every_body=True).ok
    assert verify_journal(journal.path).ok
    assert first(verify_journal(journal.path, every_body=True)).code == "record.form"

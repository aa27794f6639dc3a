from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest

from executor.audit.dsse import sign_payload
from executor.audit.receipt import Statement, build_statement, read_receipt, sign, write_receipt
from executor.audit.signer import Signer
from executor.audit.verify import verify_receipt
from tests.executor.audit.making import (
    CHANGE,
    RUN_ID,
    VERDICT_REASONS,
    make_statement,
    open_journal,
    seal_run,
)

SCHEMA = Path(__file__).parents[3] / "docs" / "receipt.schema.json"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    return seal_run(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def checked(sealed, tmp_path):
    """Sign a statement as the receipt of the sealed run and check it against the journal."""

    def check(statement, *, signer=None, **more):
        path = tmp_path / "receipt.json"
        write_receipt(sign(statement, signer or sealed.signer), path)
        return verify_receipt(path, journal=sealed.journal, **more)

    return check


def codes(verification):
    return [problem.code for problem in verification.problems]


def test_a_receipt_and_its_journal_say_the_same(sealed):
    verification = verify_receipt(
        sealed.receipt, journal=sealed.journal, key=sealed.signer.verifier("remit/key").text
    )

    assert verification.ok
    assert verification.key_pinned
    assert verification.receipt.verdict.outcome == "mixed"
    assert verification.journal.ok


def test_the_statement_is_about_the_journal_and_the_changed_files(sealed):
    _, statement = read_receipt(sealed.receipt)

    assert [subject.name for subject in statement.subject] == ["journal.jsonl", "router.py"]
    assert statement.subject[0].digest == {"sha256": sealed.seal.sha256}
    assert statement.subject[1].digest == {"sha256": CHANGE["sha256"]}


def test_a_deleted_file_or_a_link_is_no_subject(sealed):
    files = [
        {**CHANGE, "change": "deleted", "sha256": None},
        {"path": "l", "change": "added", "kind": "symlink", "target": "x"},
    ]

    statement = make_statement(sealed.seal, changes={"files": files})

    assert [subject["name"] for subject in statement["subject"]] == ["journal.jsonl"]


def test_the_envelope_is_dsse_over_an_in_toto_statement(sealed):
    envelope = json.loads(sealed.receipt.read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))

    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://remit.dev/receipt/v1"
    assert statement["predicate"]["journal"]["checkpoint"] == sealed.seal.checkpoint.text


def test_the_published_schema_is_that_of_the_statement_and_fits(sealed):
    published = json.loads(SCHEMA.read_text())
    statement = json.loads(base64.b64decode(json.loads(sealed.receipt.read_text())["payload"]))

    assert published == Statement.model_json_schema(by_alias=True, mode="serialization")
    jsonschema.validate(statement, published)


@dataclass(frozen=True)
class Reason:
    code: str
    detail: str
    records: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    outcome: str
    reasons: tuple[Reason, ...]


def test_parts_may_be_dataclasses_with_the_same_fields(sealed):
    verdict = Verdict(outcome="mixed", reasons=(Reason(**VERDICT_REASONS[0]),))

    assert make_statement(sealed.seal, verdict=verdict) == make_statement(sealed.seal)


def test_a_part_that_does_not_fit_is_refused(sealed):
    for verdict in ({"outcome": "splendid"}, {"outcome": "pass", "more": 1}, None):
        with pytest.raises(ValueError):
            make_statement(sealed.seal, verdict=verdict)


def test_names_that_are_not_utf_8_are_escaped_and_marked(sealed, checked):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    statement = make_statement(sealed.seal, changes={"files": [{**CHANGE, "path": name}]})

    assert statement["predicate"]["escaped"] is True
    assert statement["subject"][1]["name"] == "caf\\xe9"
    assert "receipt.form" not in codes(checked(statement))


def test_a_flipped_byte_anywhere_in_a_receipt_is_found(sealed, tmp_path):
    envelope = json.loads(sealed.receipt.read_text())
    payload = base64.b64decode(envelope["payload"])
    path = tmp_path / "receipt.json"
    for place in range(0, len(payload), 41):
        changed = payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]
        path.write_text(json.dumps({**envelope, "payload": base64.b64encode(changed).decode()}))

        assert codes(verify_receipt(path))[0] in {"receipt.form", "receipt.signature"}


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"verdict": {"outcome": "pass"}}, "receipt.verdict"),
        ({"verdict": {"outcome": "mixed", "reasons": []}}, "receipt.verdict"),
        ({"violations": []}, "receipt.violations"),
        ({"violations": [{"code": "scope.deny", "detail": "", "record": 9}]}, "receipt.violations"),
        ({"violations": [{"code": "budget.calls", "detail": "", "record": 3}]}, "receipt.violations"),
        ({"calls": {"decided": 3, "allowed": 3, "denied": 0}}, "receipt.calls"),
        ({"run_id": "run-2"}, "receipt.checkpoint"),
    ],
)
def test_a_receipt_that_tells_something_else_than_the_journal_is_found(sealed, checked, parts, code):
    assert set(codes(checked(make_statement(sealed.seal, **parts)))) == {code}


def test_a_receipt_for_another_remit_is_found(tmp_path):
    signer = Signer.generate()
    with open_journal(tmp_path, signer=signer, opened={"remit": "sha256:" + "f" * 64}) as journal:
        journal.append("verdict", {"outcome": "mixed", "reasons": VERDICT_REASONS})
        seal = journal.seal("finished")
    statement = make_statement(seal, violations=[], calls={})
    write_receipt(sign(statement, signer), tmp_path / "receipt.json")

    assert codes(verify_receipt(tmp_path / "receipt.json", journal=journal.path)) == ["receipt.remit"]


def test_a_receipt_without_a_verdict_in_the_journal_is_found(tmp_path):
    signer = Signer.generate()
    with open_journal(tmp_path, signer=signer) as journal:
        seal = journal.seal("finished")
    write_receipt(sign(make_statement(seal, violations=[], calls={}), signer), tmp_path / "receipt.json")

    assert codes(verify_receipt(tmp_path / "receipt.json", journal=journal.path)) == ["receipt.verdict"]


def test_a_receipt_of_another_key_is_found(sealed, checked):
    statement = make_statement(sealed.seal)

    assert codes(checked(statement, signer=Signer.generate())) == ["receipt.signature"]
    assert codes(checked(statement, key=Signer.generate().verifier("x").text)) == ["receipt.key"]


def test_a_receipt_whose_subjects_are_not_what_it_lists_is_found(sealed, checked):
    statement = make_statement(sealed.seal)
    statement["subject"][1]["digest"]["sha256"] = "00" * 32

    assert codes(checked(statement)) == ["receipt.subjects"]


def test_a_receipt_whose_checkpoint_says_something_else_is_found(sealed, checked):
    statement = make_statement(sealed.seal)
    statement["predicate"]["journal"]["size"] += 1

    assert codes(checked(statement)) == ["receipt.checkpoint"]


def test_a_receipt_of_another_journal_is_found(sealed, tmp_path):
    directory = tmp_path / "other"
    directory.mkdir()
    other = seal_run(directory, signer=sealed.signer)
    other.journal.write_bytes(b"".join(other.lines[:-1]))

    verification = verify_receipt(sealed.receipt, journal=other.journal)

    assert not verification.ok
    assert not verification.journal.ok


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff"])
def test_what_is_not_a_receipt_is_said_so(tmp_path, data):
    path = tmp_path / "receipt.json"
    path.write_bytes(data)

    assert codes(verify_receipt(path)) == ["receipt.form"]


def test_an_envelope_of_something_else_is_no_receipt(tmp_path):
    path = tmp_path / "receipt.json"
    signer = Signer.generate()
    for envelope in (sign_payload(b"{}", signer), sign_payload(b"{}", signer, payload_type="text/plain")):
        path.write_text(json.dumps(envelope))

        assert codes(verify_receipt(path)) == ["receipt.form"]
    with pytest.raises(ValueError):
        sign({"_type": "something"}, signer)


def test_a_receipt_is_written_whole_or_not_at_all(sealed, tmp_path):
    envelope = sign(make_statement(sealed.seal), sealed.signer)
    target = tmp_path / "receipt.json"
    write_receipt(envelope, target)
    taken = tmp_path / "taken"
    taken.mkdir()

    with pytest.raises(OSError):
        write_receipt(envelope, taken)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["receipt.json", "taken"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert read_receipt(target)[1].predicate.run.id == RUN_ID


def test_a_receipt_without_a_sandbox_can_be_built(sealed):
    statement = build_statement(
        seal=sealed.seal,
        run={"id": RUN_ID, "task": "t", "started": "a", "ended": "b", "elapsed_us": 0},
        remit={"digest": "sha256:0"},
        verdict={"outcome": "unproven"},
    )

    assert statement["predicate"]["sandbox"] is None

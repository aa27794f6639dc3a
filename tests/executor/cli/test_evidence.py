"""What a run left can be listed, read, verified, taken, dropped and cleaned away."""

from __future__ import annotations

import base64
import json
import shutil

import pytest

from executor.store import RunDirectory


def test_runs_are_listed_with_their_verdicts(finished):
    (row,) = finished("runs", "--json").json()["runs"]

    assert (row["task"], row["state"], row["verdict"]) == ("notes", "finished", "mixed")
    assert (row["allowed"], row["denied"]) == (2, 2)
    assert row["run"] in finished("runs").out
    assert finished("runs", "--task", "other", "--json").json()["runs"] == []


def test_a_journal_is_shown_without_a_character_that_a_terminal_obeys(finished):
    shown = finished("log", "show")

    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert "\x07" not in shown.out
    assert "verdict" in shown.out


def test_a_journal_can_be_filtered(finished):
    records = finished("log", "show", "--kind", "call.decided", "--tool", "write_file", "--json").json()[
        "records"
    ]

    assert [record["body"]["action"] for record in records] == ["allow", "allow"]


def test_violations_are_told_with_the_call_that_did_it(finished):
    found = finished("log", "violations", "--json").json()["violations"]

    assert [row["code"] for row in found] == ["scope.deny", "tool.unmapped"]
    assert [row["call"] for row in found] == ["c-0001", "c-0004"]


def test_journal_and_receipt_verify_by_id_by_latest_and_by_path(finished):
    run = finished.run_directory

    for target in (run.name, "latest", str(run)):
        assert finished("log", "verify", target).code == 0
        assert finished("receipt", "verify", target).code == 0


def test_evidence_verifies_for_somebody_who_only_has_the_files_and_the_public_key(
    finished, tmp_path, monkeypatch
):
    handed = tmp_path / "handed"
    handed.mkdir()
    for name in ("journal.jsonl", "receipt.json"):
        shutil.copy(finished.run_directory / name, handed)
    shutil.copy(finished.state / "key.pub", handed)
    monkeypatch.setenv("REMIT_STATE_DIR", str(tmp_path / "nothing"))

    log = finished(
        "log", "verify", str(handed / "journal.jsonl"), "--receipt", str(handed / "receipt.json"), "--json"
    )
    receipt = finished(
        "receipt",
        "verify",
        str(handed / "receipt.json"),
        "--journal",
        str(handed / "journal.jsonl"),
        "--key",
        str(handed / "key.pub"),
        "--json",
    )

    assert (log.code, receipt.code) == (0, 0)
    assert log.json()["anchored"] is True
    assert receipt.json()["key_pinned"] is True
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("key", ["garbage", "", "a+b+c", "/nope/key.pub", "x" * 300, "caf\udce9+00+AAAA"])
@pytest.mark.parametrize("kind", ["log", "receipt"])
def test_a_key_that_is_none_is_wrong_usage(finished, kind, key):
    ended = finished(kind, "verify", "--key", key)

    assert ended.code == 2
    assert ended.err.startswith("error: --key: ")
    assert "hint: " in ended.err


def test_a_file_without_a_key_is_wrong_usage(finished, tmp_path):
    (tmp_path / "not-a-key").write_bytes(b"\xff")

    assert finished("log", "verify", "--key", str(tmp_path / "not-a-key")).code == 2
    assert finished("log", "verify", "--key", str(tmp_path)).code == 2
    assert finished("log", "verify", "--key", str(finished.state / "key.pub")).code == 0


def test_a_key_of_the_store_itself_that_is_none_is_no_fault_of_the_usage(finished):
    (finished.state / "key.pub").write_text("garbage")

    assert finished("log", "verify").code == 5


def test_the_first_bad_record_is_named(finished):
    path = finished.run_directory / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], lines[4].replace(b"c-", b"d-"), *lines[5:]]))

    ended = finished("log", "verify", "--json")

    assert ended.code == 1
    assert ended.json()["problems"][0]["record"] == 4
    assert finished("receipt", "verify").code == 1
    assert "record 4" in finished("log", "verify").out


def test_a_receipt_is_shown_in_words_and_as_the_statement(finished):
    shown = finished("receipt", "show")
    statement = finished("receipt", "show", "--json").json()

    assert "\x1b" not in shown.out
    assert "mixed" in shown.out
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicate"]["verdict"]["outcome"] == "mixed"


def test_a_diff_spells_out_what_a_terminal_would_obey(finished):
    shown = finished("diff")
    stat = finished("diff", "--stat")

    assert "+hello" in shown.out
    assert "\x1b" not in shown.out + stat.out
    assert "\x07" not in shown.out
    assert [row["path"] for row in finished("diff", "--json").json()["changes"]] == [
        "a.txt",
        "odd\x1b[31m.txt",
    ]


def test_apply_gives_the_tree_what_the_diff_showed_and_can_be_repeated(finished):
    first = finished("apply", "latest", "--json")
    second = finished("apply", "latest")

    assert (first.code, first.json()["outcome"]) == (0, "applied")
    assert "the verdict on this run is mixed" in first.err
    assert (finished.work / "a.txt").read_text() == "hello\n"
    assert second.code == 0


def test_apply_writes_nothing_where_the_tree_has_moved_on(finished):
    (finished.work / "a.txt").write_text("somebody else's\n")

    ended = finished("apply", "latest")

    assert ended.code == 1
    assert (finished.work / "a.txt").read_text() == "somebody else's\n"
    assert len(list(finished.work.iterdir())) == 2


def test_apply_writes_nothing_over_a_file_that_was_touched_since_the_run_was_opened(project):
    (project.work / "a.txt").write_text("before\n")
    project("replay", project.remit, project.recording)
    (project.work / "a.txt").write_text("before\n")

    ended = project("apply", "latest")

    assert ended.code == 1
    assert "a.txt: was touched since the run was opened" in ended.out
    assert (project.work / "a.txt").read_text() == "before\n"


def test_apply_refuses_changes_that_are_not_the_ones_that_were_judged(finished):
    manifest = finished.run_directory / "changes/manifest.json"
    document = json.loads(manifest.read_text())
    document["changes"] = document["changes"][:1]
    manifest.write_text(json.dumps(document))

    ended = finished("apply", "latest")

    assert ended.code == 5
    assert "not what the receipt states" in ended.err
    assert not (finished.work / "a.txt").exists()


def test_apply_refuses_a_receipt_whose_signature_does_not_hold(finished):
    receipt = finished.run_directory / "receipt.json"
    envelope = json.loads(receipt.read_text())
    statement = base64.b64decode(envelope["payload"]).replace(b'"outcome":"mixed"', b'"outcome":"pass"')
    envelope["payload"] = base64.b64encode(statement).decode()
    receipt.write_text(json.dumps(envelope))

    ended = finished("apply", "latest")

    assert ended.code == 5
    assert "receipt.signature" in ended.err
    assert not (finished.work / "a.txt").exists()


def test_apply_refuses_a_journal_that_is_not_the_receipt_s(finished):
    journal = finished.run_directory / "journal.jsonl"
    journal.write_text(journal.read_text().replace(str(finished.work), f"{finished.work}2", 1))

    ended = finished("apply", "latest")

    assert ended.code == 5
    assert "does not hold" in ended.err


def test_discarded_changes_are_gone_and_the_evidence_stays(finished):
    assert finished("discard", "latest", "--json").json()["discarded"] is True

    assert finished("diff").code == 2
    assert finished("apply", "latest").code == 2
    assert finished("receipt", "verify").code == 0


@pytest.mark.parametrize("name", ["2026", "../x", "nope", ""])
def test_a_run_is_named_exactly_or_not_at_all(finished, name):
    prefix = finished.run_directory.name[:12]

    for command in ("apply", "discard", "finish"):
        assert finished(command, name).code == 2
        assert finished(command, prefix).code == 2


def test_a_finished_run_is_not_finished_again(finished):
    ended = finished("finish", "latest")

    assert ended.code == 2
    assert "is finished" in ended.err


def test_a_run_that_somebody_works_on_is_left_alone(finished):
    with RunDirectory(path=finished.run_directory).lock():
        assert finished("apply", "latest").code == 5
        assert finished("discard", "latest").code == 5
        assert finished("clean", "--all", "--yes", "--json").json()["removed"] == []


def test_clean_lists_and_removes_only_when_told_so(finished):
    run = finished.run_directory.name
    (finished.state / "runs/20200101-000000-00000000").mkdir()

    young = finished("clean", "--json").json()
    listed = finished("clean", "--all", "--json").json()
    removed = finished("clean", "--all", "--yes", "--json").json()

    assert [row["run"] for row in young["runs"]] == ["20200101-000000-00000000"]
    assert (
        {row["run"] for row in listed["runs"]} == set(removed["removed"]) == {run, "20200101-000000-00000000"}
    )
    assert listed["removed"] == []
    assert list(finished.state.glob("runs/*")) == []
    assert (finished.state / "key").exists()


def test_without_a_run_there_is_a_hint_how_to_make_one(project):
    ended = project("log", "show")

    assert ended.code == 2
    assert "hint: make one" in ended.err
    assert project("runs").code == 0

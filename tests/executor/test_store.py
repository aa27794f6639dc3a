from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from executor.audit.errors import RunExists, RunLocked, RunNotFound, StoreRefused
from executor.audit.signer import VerifierKey
from executor.store import RunStore, default_root
from tests.executor.audit.making import FakeClock


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "state", clock=FakeClock())


def test_a_new_run_has_a_directory_for_its_user_alone(store):
    run = store.create()

    assert run.path.stat().st_mode & 0o777 == 0o700
    assert store.root.stat().st_mode & 0o777 == 0o700
    assert run.run_id.startswith("20261122-120000-")
    assert store.open(run.run_id) == run
    assert {run.journal_path.name, run.receipt_path.name} == {"journal.jsonl", "receipt.json"}
    assert {
        path.parent for path in (run.changes_path, run.remit_path, run.outcomes_path, run.checkpoint_path)
    } == {run.path}


def test_runs_are_listed_by_when_they_were_made_and_not_by_name(store):
    runs = [store.create(name) for name in ("b", "c", "a")]
    for age, run in enumerate(runs):
        os.utime(run.path / "lock", ns=(age + 5, age + 5))
        with run.lock():
            run.receipt_path.touch()
    (store.runs_path / "c" / "lock").unlink()

    assert store.list() == (runs[1], runs[0], runs[2])
    assert store.latest() == runs[2]


def test_a_store_without_runs_says_so(store):
    assert store.list() == ()
    with pytest.raises(RunNotFound):
        store.latest()


def test_a_name_is_given_once(store):
    store.create("mine")

    with pytest.raises(RunExists):
        store.create("mine")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "A", "x" * 65, "a\n", "-x", ".hidden", "a\x00"]
)
def test_a_name_that_is_no_run_name_reaches_no_file(store, name):
    store.create("mine")

    with pytest.raises(StoreRefused):
        store.create(name)
    with pytest.raises(RunNotFound):
        store.open(name)


def test_one_key_signs_for_every_run_and_its_public_half_is_beside_it(store):
    signer = store.signer()

    assert store.signer().public == signer.public
    assert store.key_path.stat().st_mode & 0o777 == 0o600
    assert VerifierKey.parse(store.public_key_path.read_text()).public == signer.public


def test_a_state_directory_that_others_can_write_is_refused(store):
    store.root.mkdir()
    store.root.chmod(0o777)

    with pytest.raises(StoreRefused) as refused:
        store.create()
    assert refused.value.hint == f"chmod 700 {store.root}"


def test_a_state_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StoreRefused):
        RunStore(tmp_path / "file" / "state").create()


def test_a_run_is_held_by_one_process_at_a_time(store):
    run = store.create()
    answers = []

    def take():
        try:
            with run.lock():
                answers.append("held")
        except RunLocked:
            answers.append("refused")

    with run.lock():
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    take()

    assert answers == ["refused", "held"]


def test_the_state_directory_is_chosen_by_the_environment(monkeypatch):
    monkeypatch.setenv("REMIT_STATE_DIR", "/chosen")
    assert default_root() == Path("/chosen")
    monkeypatch.delenv("REMIT_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert default_root() == Path("/xdg/remit")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert RunStore.default().root == Path("/home/somebody/.local/state/remit")

"""What a distant engine's holder says is checked before it is believed, and what is sent holds no secret."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import tarfile

import pytest

from sandboxes.bubblewrap.copying import Extent
from sandboxes.docker.engine import engine
from sandboxes.docker.holder import Holder
from sandboxes.docker.mirror import Mirror, Torn
from sandboxes.docker.program import holder_program
from sandboxes.docker.relay import Relay
from sandboxes.docker.shipment import Record, load, tar_of
from sandboxes.errors import EngineLost, SandboxIntegrity, SandboxUnavailable
from sandboxes.workspace.changes import read_changes

DIGEST = hashlib.sha256(b"new").digest()
ROOM = Extent(size_bytes=1 << 20, entries=100)


def directory(path):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "f").write_text("kept")
    (folder / "secret").write_text("SECRET")
    (folder / "shut").mkdir()
    (folder / "shut" / "in").write_text("SECRET")
    os.symlink("../../out", folder / "link")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def loaded(tree, tmp_path):
    (tmp_path / "states").mkdir()
    hidden = ((b"secret",), (b"shut",))
    mirror = Mirror(tmp_path / "states", tree, hidden=hidden)
    source = directory(tree)
    records, _ = load(source, mirror.layer.upper_fd, room=ROOM)
    os.close(source)
    mirror.begin(tuple(sorted(records, key=lambda record: record.parts)))
    yield mirror
    mirror.close()


def surveyed(mirror, *extra):
    """Give what a volume holds that was sent a mirror's tree and then got a few entries more."""
    found = []
    for record in mirror.records:
        if record.parts[0] in (b"secret", b"shut"):
            if len(record.parts) == 1:
                found.append(record._replace(size=0, content=hashlib.sha256().digest()))
            continue
        found.append(record)
    return [*found, *extra]


def never(record, offset):
    raise AssertionError("nothing is to be fetched")


def test_nothing_of_a_hidden_path_is_sent_and_no_link(loaded):
    pieces = tar_of(loaded.layer.upper_fd, loaded.records, hidden=((b"secret",), (b"shut",)), uid=64200)
    raw = b"".join(pieces)

    with tarfile.open(fileobj=io.BytesIO(raw)) as sent:
        members = {member.name: (member.size, member.uid) for member in sent}
    assert b"SECRET" not in raw
    assert members == {"d": (0, 64200), "d/f": (4, 64200), "secret": (0, 64200), "shut": (0, 64200)}


def test_what_is_hidden_is_no_change_while_its_stand_in_is_there(loaded):
    loaded.settle(surveyed(loaded), never)

    assert read_changes(loaded.layer) == ()


def test_a_stand_in_that_is_gone_is_a_deletion(loaded):
    loaded.settle([record for record in surveyed(loaded) if record.parts != (b"secret",)], never)

    assert [(change.path, change.change) for change in read_changes(loaded.layer)] == [("secret", "deleted")]


def test_content_comes_with_the_digest_that_was_announced(loaded):
    added = Record((b"d", b"new"), "file", 0o600, 3, 5, DIGEST)

    loaded.settle(surveyed(loaded, added), lambda record, offset: b"new"[offset:])

    assert [(change.path, change.size) for change in read_changes(loaded.layer)] == [("d/new", 3)]


@pytest.mark.parametrize("answer", [b"", b"old", b"newer", b"ne"])
def test_other_content_than_was_announced_makes_no_state(loaded, answer):
    added = Record((b"d", b"new"), "file", 0o600, 3, 5, DIGEST)
    before = loaded.layer

    with pytest.raises(Torn):
        loaded.settle(surveyed(loaded, added), lambda record, offset: answer[offset:])

    assert loaded.layer == before
    assert read_changes(loaded.layer) == ()


@pytest.mark.parametrize(
    "entry",
    [
        [1, b"x", "file", 0, 0, 0, DIGEST],
        [-1, b"x", "file", 0, 0, 0, DIGEST],
        [0, b"..", "directory", 0, 0, 0, b""],
        [0, b"a/b", "file", 0, 0, 0, DIGEST],
        [0, b"/etc", "file", 0, 0, 0, DIGEST],
        [0, b"", "file", 0, 0, 0, DIGEST],
        [0, b"a\0", "file", 0, 0, 0, DIGEST],
        [0, b"a" * 256, "file", 0, 0, 0, DIGEST],
        [0, b"a", "device", 0, 0, 0, b""],
        [0, b"a", "file", 0, -1, 0, DIGEST],
        [0, b"a", "file", 0, 0, 0, b"short"],
        [0, b"a", "symlink", 0, 0, 0, b""],
        [0, b"a", "symlink", 0, 0, 0, b"x\0"],
        [0, "text", "file", 0, 0, 0, DIGEST],
        [0, b"a"],
        None,
    ],
)
def test_an_entry_that_no_tree_can_have_is_not_believed(entry):
    with pytest.raises(SandboxIntegrity):
        Holder(None, holder_program())._record(entry, [()])


def test_two_entries_of_one_name_make_no_state(loaded):
    twice = [Record((b"d", b"new"), "directory", 0o755, 0, 5, b"")] * 2

    with pytest.raises(FileExistsError):
        loaded.settle(surveyed(loaded, *twice), never)

    assert read_changes(loaded.layer) == ()


def test_no_entry_leads_through_a_link(loaded, tmp_path):
    (tmp_path / "states" / "outside").mkdir()
    through = [
        Record((b"esc",), "symlink", 0o777, 0, 5, os.fsencode(tmp_path / "states" / "outside")),
        Record((b"esc", b"x"), "directory", 0o755, 0, 5, b""),
    ]

    with pytest.raises(OSError):
        loaded.settle(surveyed(loaded, *through), never)

    assert os.listdir(tmp_path / "states" / "outside") == []


def test_modes_that_reach_beyond_permissions_do_not_come_along():
    record = Holder(None, holder_program())._record([0, b"a", "file", 0o6755, 0, 0, DIGEST], [()])

    assert record.mode == 0o755


def test_a_tree_that_is_too_large_is_refused_with_what_to_do(tree, tmp_path):
    (tmp_path / "copy").mkdir()
    source, target = directory(tree), directory(tmp_path / "copy")

    with pytest.raises(SandboxUnavailable) as refused:
        load(source, target, room=Extent(size_bytes=1 << 20, entries=2))
    os.close(source)
    os.close(target)

    assert refused.value.hint


def test_the_relay_takes_frames_apart_however_they_are_cut():
    outer, stream = socket.socketpair()
    relay = Relay(stream)
    relay.connection.settimeout(5)
    raw = b"".join(
        struct.pack(">BxxxL", kind, len(text)) + text
        for kind, text in ((1, b"one"), (2, b"talk"), (1, b"two"))
    )

    for index in range(len(raw)):
        outer.sendall(raw[index : index + 1])
    received = relay.connection.recv(3) + relay.connection.recv(3)
    relay.connection.sendall(b"down")
    sent = outer.recv(4)
    outer.close()

    assert (received, sent, relay.connection.recv(1)) == (b"onetwo", b"down", b"")
    assert relay.said() == "talk"
    relay.connection.close()


def test_an_engine_over_ssh_is_refused_with_the_tunnel_that_works(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "ssh://somebody@elsewhere")

    with pytest.raises(SandboxUnavailable) as refused:
        engine()

    assert "ssh -nNT -L" in refused.value.hint


def test_a_context_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such")

    with pytest.raises(EngineLost, match="no-such"):
        engine()

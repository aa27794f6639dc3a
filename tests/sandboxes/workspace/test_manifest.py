from __future__ import annotations

import json
import os

import pytest

from sandboxes.base import Layer
from sandboxes.workspace import ChangesInvalid, LayerUnreadable, discard, export_changes, load_manifest


@pytest.fixture
def layer(tmp_path):
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    upper.mkdir()
    (lower / "gone").write_bytes(b"old")
    (upper / "file").write_bytes(b"content")
    (upper / "same").write_bytes(b"content")
    (upper / "empty").mkdir()
    os.symlink(b"\xff", bytes(upper) + b"/\xfe")
    fd = os.open(upper, os.O_RDONLY)
    yield Layer(upper_fd=fd, lower=lower, strategy="copy")
    os.close(fd)


@pytest.fixture
def exported(layer, tmp_path):
    return export_changes(layer, tmp_path / "run" / "changes")


def edit(exported, change):
    path = exported.directory / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_what_is_exported_is_loaded(exported):
    assert load_manifest(exported.directory) == exported
    assert [change.path for change in exported.changes] == ["empty", "file", "gone", "same", "\udcfe"]
    assert exported.read_blob(exported.changes[1].sha256) == b"content"


def test_the_manifest_is_json_for_every_reader(exported):
    text = (exported.directory / "manifest.json").read_bytes().decode("utf-8")
    document = json.loads(text)

    assert document["format"] == "remit-changes/1"
    assert document["changes"][-1]["path"] == {"base64": "/g=="}
    assert document["changes"][-1]["target"] == {"base64": "/w=="}
    assert "\\ud" not in text


def test_nobody_else_can_read_an_export(exported):
    for directory, _, files in os.walk(exported.directory):
        assert os.stat(directory).st_mode & 0o077 == 0 or directory == str(exported.directory)
        assert all(os.stat(os.path.join(directory, name)).st_mode & 0o077 == 0 for name in files)


def test_equal_content_is_kept_once(exported):
    assert len(list((exported.directory / "blobs").iterdir())) == 1


def test_digests_are_given_for_a_receipt(exported):
    digests = exported.digests()

    assert digests["gone"] is None
    assert digests["empty"] == "directory"
    assert digests["file"] == f"sha256:{exported.changes[1].sha256}"
    assert digests["\\xfe"].startswith("symlink:")
    json.dumps(digests, ensure_ascii=False).encode("utf-8")


def test_a_second_export_replaces_the_first(layer, exported, tmp_path):
    (tmp_path / "upper" / "file").write_bytes(b"other")
    (tmp_path / "upper" / "same").unlink()

    again = export_changes(layer, exported.directory)

    assert load_manifest(exported.directory) == again
    assert len(list((exported.directory / "blobs").iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.update(format="remit-changes/2"),
        lambda document: document.update(extra=1),
        lambda document: document["changes"][0].update(extra=1),
        lambda document: document["changes"][0].update(path="../x"),
        lambda document: document["changes"][0].update(path="/etc/passwd"),
        lambda document: document["changes"][0].update(path="a//b"),
        lambda document: document["changes"][0].update(path="a\0b"),
        lambda document: document["changes"][0].update(path="."),
        lambda document: document["changes"][0].update(path={"base64": "Li4="}),
        lambda document: document["changes"][0].update(path={"base64": "!"}),
        lambda document: document["changes"][0].update(mode=0o4755),
        lambda document: document["changes"][0].update(mode="755"),
        lambda document: document["changes"][0].update(mode=None),
        lambda document: document["changes"][1].update(sha256=None),
        lambda document: document["changes"][1].update(sha256="../../../../etc/passwd"),
        lambda document: document["changes"][1].update(size=8),
        lambda document: document["changes"][1].update(target="x"),
        lambda document: document["changes"][2].update(before_kind=None),
        lambda document: document["changes"].reverse(),
        lambda document: document["changes"].append(document["changes"][-1]),
        lambda document: document.pop("lower"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(exported, damage):
    edit(exported, damage)

    with pytest.raises(ChangesInvalid):
        load_manifest(exported.directory)


def test_damaged_content_is_refused(exported):
    blob = exported.blob_path(exported.changes[1].sha256)
    blob.write_bytes(b"CONTENT")

    with pytest.raises(ChangesInvalid):
        load_manifest(exported.directory)
    with pytest.raises(ChangesInvalid):
        exported.read_blob(blob.name)


@pytest.mark.parametrize("name", ["manifest.json", "blobs"])
def test_a_missing_part_is_refused(exported, name):
    os.rename(exported.directory / name, exported.directory / "elsewhere")

    with pytest.raises(ChangesInvalid):
        load_manifest(exported.directory)


def test_an_export_of_a_layer_that_is_gone_leaves_no_manifest(layer, tmp_path):
    os.rename(tmp_path / "lower", tmp_path / "elsewhere")

    with pytest.raises(LayerUnreadable):
        export_changes(layer, tmp_path / "out")
    with pytest.raises(ChangesInvalid):
        load_manifest(tmp_path / "out")


def test_discarded_changes_are_gone(exported):
    assert discard(exported.directory)
    assert not exported.directory.exists()
    assert not discard(exported.directory)

"""Keys, checkpoints and envelopes: what is signed, and that nothing else passes."""

from __future__ import annotations

import base64
import json
import os
import threading

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from executor.audit.checkpoint import load_checkpoint, parse_checkpoint, sign_checkpoint, store_checkpoint
from executor.audit.dsse import parse_envelope, pre_authentication_encoding, sign_payload
from executor.audit.errors import KeyRefused
from executor.audit.signer import Signer, VerifierKey

# The example of the C2SP signed-note specification.
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_TEXT = b"This is an example message.\n"
SPEC_SIGNATURE = (
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
)


@pytest.fixture
def signer():
    return Signer.generate()


@pytest.fixture
def checkpoint(signer):
    return sign_checkpoint(signer, origin="remit/journals/run-1", size=7, root=b"\x01" * 32)


def test_the_specification_s_example_verifies():
    key = VerifierKey.parse(SPEC_KEY)
    blob = base64.b64decode(SPEC_SIGNATURE)

    assert key.text == SPEC_KEY
    assert blob[:4] == key.key_id
    assert key.verifies(SPEC_TEXT, blob[4:])
    assert not key.verifies(SPEC_TEXT + b"!", blob[4:])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/foo",
        SPEC_KEY.replace("530d903a", "530d903b"),
        SPEC_KEY.replace("example.com/foo", "example.com/bar"),
        SPEC_KEY[:-4],
        SPEC_KEY + "!",
        "a b+00000000+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    ],
)
def test_a_verifier_key_that_does_not_fit_together_is_refused(text):
    with pytest.raises(KeyRefused):
        VerifierKey.parse(text)


def test_a_checkpoint_is_a_note_of_three_lines_signed_under_its_origin(signer, checkpoint):
    lines = checkpoint.text.split("\n")

    assert lines[:4] == ["remit/journals/run-1", "7", base64.b64encode(b"\x01" * 32).decode(), ""]
    assert lines[4].startswith("\u2014 remit/journals/run-1 ")
    assert parse_checkpoint(checkpoint.text) == checkpoint
    assert checkpoint.signed_by(signer.verifier("remit/journals/run-1"))


def test_a_checkpoint_verifies_under_the_same_key_by_another_name(signer, checkpoint):
    assert checkpoint.signed_by(signer.verifier("remit/key"))


def test_a_checkpoint_of_another_key_or_text_does_not_verify(signer, checkpoint):
    other = Signer.generate().verifier("remit/journals/run-1")
    changed = parse_checkpoint(checkpoint.text.replace("\n7\n", "\n8\n"))

    assert not checkpoint.signed_by(other)
    assert not changed.signed_by(signer.verifier("remit/journals/run-1"))


def test_signatures_of_others_beside_ours_are_passed_over(signer, checkpoint):
    witness = sign_checkpoint(Signer.generate(), origin="remit/journals/run-1", size=7, root=b"\x01" * 32)
    text = checkpoint.text + witness.text.partition("\n\n")[2]

    assert parse_checkpoint(text).signed_by(signer.verifier("x"))


def test_a_bad_signature_of_our_key_spoils_a_good_one(signer, checkpoint):
    line = checkpoint.text.partition("\n\n")[2]
    name, blob = line.split(" ")[1], bytearray(base64.b64decode(line.split(" ")[2]))
    blob[10] ^= 1
    text = checkpoint.text + f"\u2014 {name} {base64.b64encode(bytes(blob)).decode()}\n"

    assert not parse_checkpoint(text).signed_by(signer.verifier("x"))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text.replace("\n7\n", "\n07\n"),
        lambda text: text.replace("\n7\n", "\n-7\n"),
        lambda text: text.replace("\n7\n", "\n7\u0661\n"),
        lambda text: text.replace("\n7\n", f"\n{10**20}\n"),
        lambda text: text.replace("\n7\n", "\n7\nmore\n"),
        lambda text: text.replace("AQEB", "????", 1),
        lambda text: text.replace("AQEBAQEB", "", 1),
        lambda text: text.replace("remit/journals/run-1\n", "remit journals\n", 1),
        lambda text: text.partition("\n\n")[0] + "\n\n",
        lambda text: text.replace("\u2014", "-"),
        lambda text: text + "x" * 70_000,
    ],
)
def test_what_is_not_a_checkpoint_is_refused(checkpoint, change):
    with pytest.raises(ValueError):
        parse_checkpoint(change(checkpoint.text))


def test_an_origin_that_cannot_be_a_key_name_is_refused(signer):
    for origin in ("", "a b", "a+b", "a\nb"):
        with pytest.raises(ValueError):
            sign_checkpoint(signer, origin=origin, size=0, root=b"\x00" * 32)


def test_a_stored_checkpoint_is_read_back(checkpoint, tmp_path):
    store_checkpoint(checkpoint, tmp_path / "checkpoint")

    assert load_checkpoint(tmp_path / "checkpoint") == checkpoint
    assert (tmp_path / "checkpoint").stat().st_mode & 0o777 == 0o600


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "key"

    made, loaded = Signer.load_or_create(path), Signer.load_or_create(path)

    assert made.public == loaded.public
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_processes_that_race_for_the_first_key_get_the_same(tmp_path):
    start = threading.Barrier(8)
    keys = []

    def make():
        start.wait()
        keys.append(Signer.load_or_create(tmp_path / "key").public)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_private_key_shows_itself_nowhere(tmp_path):
    signer = Signer.load_or_create(tmp_path / "key")
    pem = (tmp_path / "key").read_text().split("\n")[1]

    assert pem not in repr(signer)
    assert signer.public.hex() in repr(signer)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_can_reach_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    Signer.load_or_create(path)
    path.chmod(mode)

    with pytest.raises(KeyRefused):
        Signer.load(path)


def test_what_is_not_an_ed25519_key_file_is_refused(tmp_path):
    rsa = generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name, content in (("text", b"hello"), ("rsa", rsa)):
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyRefused):
            Signer.load(path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "rsa")
    for name in ("fifo", "link", "missing"):
        with pytest.raises(KeyRefused):
            Signer.load(tmp_path / name)


def test_the_bytes_signed_in_an_envelope_are_those_of_the_dsse_specification():
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")

    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_an_envelope_verifies_only_under_its_key_payload_and_type(signer):
    envelope = sign_payload(b"{}", signer)
    key = signer.verifier("x")

    def holds(**changes):
        return parse_envelope(json.dumps({**envelope, **changes}).encode()).signed_by(key)

    assert holds()
    assert not holds(payload=base64.b64encode(b"{ }").decode())
    assert not holds(payloadType="text/plain")
    assert not holds(signatures=[{"sig": "AAAA"}])
    assert not holds(signatures=[{"sig": "not base64"}])
    assert not parse_envelope(json.dumps(envelope).encode()).signed_by(Signer.generate().verifier("x"))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"payload":"","payloadType":"","signatures":[]}'])
def test_what_is_not_an_envelope_is_refused(data):
    with pytest.raises(ValueError):
        parse_envelope(data)

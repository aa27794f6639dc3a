from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.audit.canonical import canonical
from executor.audit.errors import JournalError, KeyRefused
from executor.audit.privacy import PREVIEW_CHARACTERS, REDACTED, Fingerprints, preview, redact
from tests.executor.audit.making import open_journal

SECRETS = [
    "sk-proj-abcdefghijklmnop1234",
    "sk_live_abcdefghijklmnop1234",
    "ghp_abcdefghijklmnopqrst",
    "github_pat_abcdefghijklmnopqrst",
    "glpat-abcdefghijklmnopqrst",
    "xoxb-12345678-abcdefgh",
    "AKIAABCDEFGHIJKLMNOP",
    "AIzaabcdefghijklmnopqrstuvwx",
    "npm_abcdefghijklmnopqrst",
    "hf_abcdefghijklmnopqrst",
    "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\ncut off here",
]


@pytest.fixture
def fingerprints(tmp_path):
    return Fingerprints.create(tmp_path / "digest.key")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "curl -H 'X: {}' host", "a={}"])
def test_known_shapes_of_secrets_are_not_shown(secret, around):
    text, _ = preview({"command": around.format(secret)})

    assert secret.partition("\n")[0] not in text
    assert REDACTED in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("curl https://user:hunter2@host/", "curl https://[redacted]@host/"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [redacted]"),
        ("GITHUB_TOKEN=abc123 make", "GITHUB_TOKEN=[redacted] make"),
        ('{"password": "hunter2"}', '{"password": "[redacted]"}'),
        ("login --password hunter2 now", "login --password [redacted] now"),
        ("the token budget and the password field", "the token budget and the password field"),
        ("git log --oneline src/keys.py", "git log --oneline src/keys.py"),
        ("https://host/a:b@c", "https://host/a:b@c"),
    ],
)
def test_secrets_beside_their_name_are_taken_out_and_prose_is_left(text, shown):
    assert redact(text) == shown


def test_the_value_of_an_argument_named_like_a_secret_is_never_shown():
    text, _ = preview({"api_key": "abc", "nested": {"password": ["x", {"token": "y"}]}, "path": "a"})

    assert text == "api_key=[redacted] nested={password=[redacted]} path=a"


def test_a_preview_is_short_and_says_when_it_was_cut():
    for value in ("x" * 10_000, ["x"] * 10_000, {str(n): n for n in range(10_000)}, "\n" * 200):
        text, truncated = preview({"value": value})

        assert len(text) <= PREVIEW_CHARACTERS
        assert truncated
    assert preview({"command": "ls"}) == ("command=ls", False)


def test_a_preview_holds_no_control_characters():
    text, _ = preview({"a\x1b": "b\x1b[31m\u202e\udcff\n"})

    assert text.isprintable()
    assert text.endswith("\\n")


def test_a_secret_at_the_edge_of_the_preview_does_not_show_its_start():
    for before in range(PREVIEW_CHARACTERS - 40, PREVIEW_CHARACTERS):
        text, _ = preview({"c": "x" * before + " ghp_abcdefghijklmnopqrst"})

        assert "ghp_" not in text


@given(
    st.dictionaries(
        st.text(), st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists), max_size=5
    )
)
def test_any_arguments_have_a_record(arguments):
    text, truncated = preview(arguments)

    assert len(text) <= PREVIEW_CHARACTERS
    assert canonical({"preview": text, "truncated": truncated})


def test_the_digest_is_an_hmac_under_the_journal_s_own_key(fingerprints, tmp_path):
    key = (tmp_path / "digest.key").read_bytes()
    expected = hmac.new(key, canonical({"path": "a"}), hashlib.sha256).hexdigest()

    assert fingerprints.arguments({"path": "a"})["digest"] == f"hmac-sha256:{expected}"
    assert fingerprints.matches({"path": "a"}, f"hmac-sha256:{expected}")
    assert not fingerprints.matches({"path": "b"}, f"hmac-sha256:{expected}")


def test_two_journals_give_the_same_arguments_different_digests(tmp_path):
    one, two = Fingerprints.create(tmp_path / "one"), Fingerprints.create(tmp_path / "two")

    assert one.arguments({"pin": "1234"})["digest"] != two.arguments({"pin": "1234"})["digest"]
    assert Fingerprints.load(tmp_path / "one").digest(b"x") == one.digest(b"x")


def test_the_key_is_in_no_record_and_no_representation(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.append("violation", {"code": "x", "detail": repr(journal.fingerprints)})
        journal.seal("finished")
    key = (tmp_path / "digest.key").read_bytes()

    assert key not in journal.path.read_bytes()
    assert key.hex() not in journal.path.read_text()
    assert repr(key)[2:-1] not in repr(journal.fingerprints)


def test_a_digest_key_that_cannot_be_kept_or_trusted_is_refused(tmp_path):
    path = tmp_path / "digest.key"
    Fingerprints.create(path)
    with pytest.raises(JournalError):
        Fingerprints.create(path)
    path.chmod(0o644)
    with pytest.raises(KeyRefused):
        Fingerprints.load(path)
    short = tmp_path / "short"
    short.write_bytes(b"x")
    short.chmod(0o600)
    with pytest.raises(KeyRefused):
        Fingerprints.load(short)

"""The files that RUN stands for: a run of the store, or a directory or file that somebody handed over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from executor.audit.errors import KeyRefused
from executor.audit.signer import VerifierKey
from executor.cli.errors import InvocationError
from executor.cli.load import LATEST, open_run_directory, open_store
from executor.store import RunDirectory

_MAX_KEY_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Journal, receipt and checkpoint of one run, as far as they are there, and the key to hold them against.

    Attributes:
        key: C2SP verifier key that was not taken from the evidence itself.
    """

    journal: Path | None
    receipt: Path | None
    checkpoint: Path | None
    key: str | None


def find_evidence(target: str, *, state_dir: Path | None, key: str | None) -> Evidence:
    """Find what ``target`` stands for. A run of this store is held against the store's own public key.

    Raises:
        InvocationError: There is no such run or file, or ``key`` is not a key.
    """
    path = Path(target)
    if target != LATEST and path.is_dir():
        return _of_directory(RunDirectory(path=path), key=read_key(key))
    if target != LATEST and path.is_file():
        return _of_file(path, key=read_key(key))
    if "/" in target:
        raise InvocationError(f"{target}: no such file or directory")
    directory = open_run_directory(state_dir, target)
    return _of_directory(directory, key=read_key(key) or store_key(state_dir))


def store_key(state_dir: Path | None) -> str | None:
    """Read the store's own public key, if it has one yet."""
    public = open_store(state_dir).public_key_path
    return _key_file(public) if public.exists() else None


def read_key(given: str | None) -> str | None:
    """Read a verifier key: the text itself, or a file that holds it.

    Raises:
        InvocationError: The file cannot be read, or there is no such key and no such file.
    """
    if given is None:
        return None
    try:
        text = _key_file(Path(given)) if Path(given).is_file() else given
        VerifierKey.parse(text)
    except (KeyRefused, OSError, ValueError) as error:
        hint = "give the contents or the path of a key.pub: `--key ~/.local/state/remit/key.pub`"
        raise InvocationError(f"--key: {error}", hint=hint) from error
    return text


def _key_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_KEY_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvocationError(f"{path}: cannot be read as a key: {error}") from error


def _of_directory(directory: RunDirectory, *, key: str | None) -> Evidence:
    return Evidence(
        journal=_existing(directory.journal_path),
        receipt=_existing(directory.receipt_path),
        checkpoint=_existing(directory.checkpoint_path),
        key=key,
    )


def _of_file(path: Path, *, key: str | None) -> Evidence:
    # A journal is lines, a receipt one document; only the name tells them apart before they are read.
    is_journal = path.suffix == ".jsonl"
    return Evidence(
        journal=path if is_journal else None, receipt=None if is_journal else path, checkpoint=None, key=key
    )


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None

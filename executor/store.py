"""Where runs are kept: one directory a run, readable by its user alone, and the key that signs for all."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from executor.audit.clock import Clock, SystemClock
from executor.audit.errors import RunExists, RunLocked, RunNotFound, StoreRefused
from executor.audit.journal import CHECKPOINT_NAME, JOURNAL_NAME
from executor.audit.signer import Signer

KEY_NAME = "remit/key"
LOCK_NAME = "lock"
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def journal_path(self) -> Path:
        """Every decision and what came of it, one line each."""
        return self.path / JOURNAL_NAME

    @property
    def checkpoint_path(self) -> Path:
        """The newest signed checkpoint, beside the journal."""
        return self.path / CHECKPOINT_NAME

    @property
    def receipt_path(self) -> Path:
        """The signed statement of the run, once it is finished."""
        return self.path / "receipt.json"

    @property
    def changes_path(self) -> Path:
        """The exported changes of the workspace."""
        return self.path / "changes"

    @property
    def remit_path(self) -> Path:
        """The effective remit of the run."""
        return self.path / "remit.json"

    @property
    def outcomes_path(self) -> Path:
        """What was answered to each client call, for a call that is issued again."""
        return self.path / "outcomes.jsonl"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process alone; the kernel lets go when the process dies.

        Raises:
            RunLocked: Another process holds it.
        """
        fd = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise RunLocked(
                f"run {self.run_id}: another process is working on it", hint="wait until it ends"
            ) from error
        finally:
            os.close(fd)


class RunStore:
    """The state directory: ``runs/<run id>/`` and the signing key."""

    def __init__(self, root: Path, *, clock: Clock | None = None) -> None:
        self.root = root
        self.runs_path = root / "runs"
        self.key_path = root / "key"
        self.public_key_path = root / "key.pub"
        self._clock = clock or SystemClock()

    @classmethod
    def default(cls) -> RunStore:
        """Return this user's store: ``$REMIT_STATE_DIR``, else ``remit`` below ``$XDG_STATE_HOME``."""
        return cls(default_root())

    def create(self, run_id: str | None = None) -> RunDirectory:
        """Make the directory of a new run; without a name it gets one that sorts by time.

        Raises:
            RunExists: There is a run with this name.
            StoreRefused: The state directory cannot be used, or the name is not one.
        """
        self._prepare()
        name = run_id if run_id is not None else self._new_name()
        path = self._path_of(name)
        try:
            path.mkdir(mode=0o700)
            (path / LOCK_NAME).touch(mode=0o600, exist_ok=False)
        except FileExistsError as error:
            raise RunExists(f"run {name}: is there already") from error
        except OSError as error:
            raise StoreRefused(f"{path}: cannot be made: {error.strerror}") from error
        return RunDirectory(path=path)

    def open(self, run_id: str) -> RunDirectory:
        """Return the directory of a run.

        Raises:
            RunNotFound: There is none with exactly this name.
        """
        if not _RUN_ID.fullmatch(run_id) or not self._path_of(run_id).is_dir():
            raise RunNotFound(
                f"no run {run_id!r} in {self.runs_path}", hint="remit log show lists the newest run"
            )
        return RunDirectory(path=self._path_of(run_id))

    def list(self) -> tuple[RunDirectory, ...]:
        """Return all runs, oldest first."""
        if not self.runs_path.is_dir():
            return ()
        found = [
            entry for entry in self.runs_path.iterdir() if _RUN_ID.fullmatch(entry.name) and entry.is_dir()
        ]
        return tuple(RunDirectory(path=path) for path in sorted(found, key=_age))

    def latest(self) -> RunDirectory:
        """Return the newest run.

        Raises:
            RunNotFound: There is none yet.
        """
        runs = self.list()
        if not runs:
            raise RunNotFound(f"no runs in {self.runs_path} yet")
        return runs[-1]

    def signer(self) -> Signer:
        """Return the key that signs for every run, made at first use; its public half is kept beside it.

        Raises:
            KeyRefused: The key cannot be trusted.
            StoreRefused: The state directory cannot be used.
        """
        self._prepare()
        signer = Signer.load_or_create(self.key_path)
        text = signer.verifier(KEY_NAME).text + "\n"
        if not self.public_key_path.exists() or self.public_key_path.read_text() != text:
            self.public_key_path.write_text(text)
        return signer

    def _prepare(self) -> None:
        for path in (self.root, self.runs_path):
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                status = path.stat()
            except OSError as error:
                raise StoreRefused(f"{path}: cannot be used: {error.strerror}") from error
            if status.st_uid != os.geteuid():
                raise StoreRefused(f"{path}: belongs to uid {status.st_uid}, not to {os.geteuid()}")
            if status.st_mode & 0o022:
                mode = stat.S_IMODE(status.st_mode)
                raise StoreRefused(
                    f"{path}: mode {mode:04o} lets others write here", hint=f"chmod 700 {path}"
                )

    def _path_of(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise StoreRefused(
                f"{run_id!r} is not a run name",
                hint="letters a-z, digits, dots, dashes and underscores; at most 64",
            )
        return self.runs_path / run_id

    def _new_name(self) -> str:
        return f"{self._clock.wall_time():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def default_root() -> Path:
    """Return the state directory of this user."""
    chosen = os.environ.get("REMIT_STATE_DIR")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "remit"


def _age(path: Path) -> tuple[int, str]:
    """Return when a run was made: its lock file is never written after that."""
    try:
        return (path / LOCK_NAME).stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name

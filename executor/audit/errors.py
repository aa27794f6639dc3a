"""What can go wrong with the journal, the key or the store. What a verification finds is a result.

AuditError
├── JournalError
│   ├── JournalUnavailable   a record could not be written or made durable; nothing may rest on it
│   ├── JournalLocked        another process is writing this journal
│   ├── JournalExists        a new journal was asked for where there is one
│   ├── JournalDamaged       the journal does not hold together and must not be continued
│   └── JournalClosed        the journal has been closed for good
├── RecordRefused            a record holds a value that canonical JSON cannot carry
├── KeyRefused               a key cannot be trusted or read
└── StoreError
    ├── StoreRefused         the state directory cannot be trusted or used
    ├── RunNotFound          there is no such run
    ├── RunExists            a new run was asked for where there is one
    └── RunLocked            another process is working on this run
"""

from __future__ import annotations


class AuditError(Exception):
    """The machinery failed; says what, where and the value seen.

    ``hint`` is the remedy, shown on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class JournalError(AuditError):
    """The journal could not do what was asked."""


class JournalUnavailable(JournalError):
    """A record is not in the journal, or may not outlive a crash. Deny what depends on it."""

    code = "audit.unavailable"


class JournalLocked(JournalError):
    """Another process holds the journal's lock."""


class JournalExists(JournalError):
    """There is a journal in this directory already."""


class JournalDamaged(JournalError):
    """What is on disk is not what was written; continuing would sign over it."""

    code = "journal.broken"


class JournalClosed(JournalError):
    """Nothing can follow the record that closed this journal."""

    code = "run.closed"


class RecordRefused(AuditError):
    """A value has no canonical form here: a float, an integer of 2^53 or more, a lone surrogate."""


class KeyRefused(AuditError):
    """A key file is missing, open to others, or not an Ed25519 key."""


class StoreError(AuditError):
    """The place where runs are kept could not do what was asked."""


class StoreRefused(StoreError):
    """The state directory belongs to somebody else or can be written by others."""


class RunNotFound(StoreError):
    """No run has this name."""


class RunExists(StoreError):
    """A run with this name is there already."""


class RunLocked(StoreError):
    """Another process is working on this run."""

"""What can go wrong with a run itself. A denied call or a failed check is a result, not one of these.

ExecutorError
├── RemitUnenforceable   this host, tree or remit cannot be held to what it promises; nothing was started
├── RunClosed            the run was sealed, or its context left; it takes no more calls
└── RunNotResumable      what an earlier broker left cannot be gone on with

Beside it stand the trees of the parts that can be used alone: ``executor.audit.errors.AuditError`` for the
journal and the store, ``sandboxes.errors.SandboxError``, ``budgets.remit.RemitInvalid`` for a remit's text.
"""

from __future__ import annotations


class ExecutorError(Exception):
    """The machinery failed; says what, where and the value seen.

    ``hint`` is the remedy, shown on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class RemitUnenforceable(ExecutorError):
    """The remit asks for what cannot be enforced here."""


class RunClosed(ExecutorError):
    """The run takes no more calls."""


class RunNotResumable(ExecutorError):
    """The run cannot be gone on with."""

"""What can go wrong with a sandbox itself. A command or file operation that fails is a result, none of these.

SandboxError
├── SandboxUnavailable      this host cannot give what the spec asks for; nothing was started
├── SandboxStartFailed      it could be given, but the start went wrong
├── SandboxDied             the guest ended while it was needed
├── SandboxUnresponsive     no answer within the deadline; the sandbox has been killed
├── EngineLost              the engine cannot be reached, or went away
├── EngineUnresponsive      the engine did not answer within the deadline
└── SandboxIntegrity        the guest channel carried something nobody asked for; the sandbox has been killed
"""

from __future__ import annotations


class SandboxError(Exception):
    """The machinery failed; says what, where and the value seen.

    ``hint`` is the remedy, shown on a line of its own.
    """

    code = "sandbox.died"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class SandboxUnavailable(SandboxError):
    """A required control or the backend itself cannot be had on this host."""

    code = "sandbox.start"


class SandboxStartFailed(SandboxError):
    """The sandbox could not be brought up."""

    code = "sandbox.start"


class SandboxDied(SandboxError):
    """The guest ended while a request was under way or before one."""

    code = "sandbox.died"


class SandboxUnresponsive(SandboxError):
    """The guest did not answer in time and was killed."""

    code = "sandbox.unresponsive"


class EngineLost(SandboxError):
    """The engine that runs sandboxes cannot be reached; what was under way may still have had effects."""

    code = "sandbox.engine_lost"


class EngineUnresponsive(SandboxError):
    """The engine that runs sandboxes did not answer in time; what it was asked may still be done."""

    code = "sandbox.engine_unresponsive"


class SandboxIntegrity(SandboxError):
    """A frame nobody asked for, a bad length, a second answer: the sandbox cannot be believed any more."""

    code = "sandbox.integrity"

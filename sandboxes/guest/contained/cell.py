"""A keeper and its commands, as the guest sees them."""

from __future__ import annotations

import os

from sandboxes.guest.cell import Cell
from sandboxes.guest.contained import keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGUSR1 = 10


class KeeperCell(Cell):
    """A keeper that waits with a child for the words of a command, again after each that left nothing.

    A dressed child has given up everything before it waits, so that it can be looked at from outside. Others
    stay root until then: a command that runs meanwhile can neither signal nor stop them.
    """

    def __init__(self, settings: dict[str, Any], dressed: bool = False) -> None:
        super().__init__()
        try:
            self.pid = os.fork()
        except OSError:
            self._hand_over()
            self.close()
            raise
        if self.pid == 0:
            keeper.keep(settings, self.orders_end.fileno(), self.status_end, dressed)
        self._hand_over()

    def kill(self) -> None:
        """Have the keeper kill the command and everything below it."""
        self.spoil()
        # The number is the keeper's as long as nobody has collected it.
        if not self.reap():
            os.kill(self.pid, _SIGUSR1)

    def reap(self) -> bool:
        """Collect the keeper once it has ended; False while it lives."""
        if not self.reaped:
            try:
                self.reaped = os.waitpid(self.pid, os.WNOHANG)[0] != 0
            except ChildProcessError:
                self.reaped = True
        return self.reaped

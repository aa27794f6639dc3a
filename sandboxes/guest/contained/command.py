"""A command in a container, where a control group holds the memory and the guest is another user."""

from __future__ import annotations

from sandboxes.guest.command import Command
from sandboxes.guest.contained import memory
from sandboxes.guest.contained.owner import AsOwner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandboxes.guest import watch
    from sandboxes.guest.cell import Cell


class ContainedCommand(Command):
    """A command below a keeper."""

    def __init__(self, cell: Cell, request: dict[str, Any], settings: dict[str, Any]) -> None:
        super().__init__(cell, request, settings, settings["mount"], settings["mount"])
        self._kills_before = memory.kills()

    def check(self, usage: watch.Usage, now: float) -> None:
        """Hold the limits that nothing else enforces, and say which one the kernel is about to."""
        if self.cell.spoiled:
            # A signal that came just before the keeper began to wait is seen only with the next one.
            self.cell.kill()
        super().check(usage, now)

    def held_bytes(self, usage: watch.Usage) -> int:
        """Return the memory that the command holds now."""
        # Only the owner may ask how many of a page's users there are.
        with AsOwner(self._settings["uid"]):
            return super().held_bytes(usage)

    def ran_out_of_memory(self) -> bool:
        """Whether something of it was killed for the memory that it held."""
        return memory.kills() > self._kills_before

"""Who does what: the guest is root, commands and file operations have the workspace's owner.

Root here holds three capabilities and none that reaches past file permissions. With the owner as effective
uid it has not even those in effect: a file operation can do exactly what a command could.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Belongs to nobody; signals of a command never reach a process whose real and saved uid is another one.
_SIGNALLER = 65533


def take_group(settings: dict[str, Any]) -> None:
    """Give the guest, for good, the owner's group and no other."""
    os.setgroups([])
    os.setresgid(settings["gid"], settings["gid"], settings["gid"])


class AsOwner:
    """A context in which this process has the rights of the workspace's owner and no more."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def __enter__(self) -> None:
        os.seteuid(self._uid)

    def __exit__(self, *_: object) -> None:
        os.seteuid(0)


def become_command(settings: dict[str, Any]) -> None:
    """Be the owner in every respect, without a way back."""
    os.setgroups([])
    os.setresgid(settings["gid"], settings["gid"], settings["gid"])
    os.setresuid(settings["uid"], settings["uid"], settings["uid"])


class AsSignaller:
    """A context in which this process can signal every process of the owner and none of anybody else.

    Nobody of the owner's uid can signal it: for that its real and its saved uid count.
    """

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def __enter__(self) -> None:
        os.setresuid(_SIGNALLER, self._uid, 0)

    def __exit__(self, *_: object) -> None:
        os.setresuid(0, 0, 0)

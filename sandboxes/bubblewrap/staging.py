"""What a root broker prepares so that bubblewrap can run as an unprivileged uid.

bubblewrap started by root leaves /proc/sys/kernel/core_pattern writable inside, so it never is. An
unprivileged uid in turn can neither reach a tree below /root nor own root's files; a copy of the mount that
shows the tree's owner as that uid gives it exactly the tree and nothing else. All of it lies on a tmpfs that
only the spawning thread's mount namespace knows, so nothing is left on the host, however the broker ends.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
from pathlib import Path

from sandboxes.bubblewrap import mounts
from sandboxes.bubblewrap.binary import Binary
from sandboxes.bubblewrap.rootfs import is_below
from sandboxes.errors import SandboxUnavailable

SANDBOX_UIDS = range(64200, 64300)

_PLACES = ("/srv", "/media", "/mnt", "/opt", "/run", "/var/tmp", "/tmp")  # noqa: S108
_SIZE_BYTES = 16 * 1024 * 1024


class Staging:
    """Trees and programs staged for one unprivileged uid. Belongs to the thread that made it."""

    def __init__(self) -> None:
        self.uid = sandbox_uid()
        self._numbers = itertools.count(1)
        self._maps: dict[tuple[int, int], int] = {}
        self._trees: dict[str, str] = {}
        self._programs: dict[Path, str] = {}
        mounts.enter_private_mount_namespace()
        self._place = next(place for place in _PLACES if os.path.isdir(place))
        host = mounts.clone_tree("/")
        mounts.mount_tmpfs(self._place, f"size={_SIZE_BYTES},mode=755")
        os.mkdir(f"{self._place}/host", 0o700)
        mounts.attach_tree(host, f"{self._place}/host")
        os.close(host)

    def program(self, binary: Binary) -> str:
        """Return a path of bubblewrap that the unprivileged uid can execute."""
        if binary.path not in self._programs:
            self._programs[binary.path] = self._copy_program(binary)
        return self._programs[binary.path]

    def system_tree(self, source: str) -> str:
        """Return a path at which the unprivileged uid can read a tree, as long as the process lives."""
        if source not in self._trees:
            self._trees[source] = self.tree(source)
        return self._trees[source]

    def tree(self, source: str) -> str:
        """Return where the unprivileged uid owns a tree, read-only; ``release`` that after the start."""
        outside = self._outside(source)
        status = os.stat(outside)
        tree = mounts.clone_tree(outside)
        try:
            mounts.restrict_tree(tree, identity_map=self._map((status.st_uid, status.st_gid)))
            place = f"{self._place}/{next(self._numbers)}"
            os.mkdir(place, 0o755)
            mounts.attach_tree(tree, place)
        except OSError as error:
            raise SandboxUnavailable(
                f"the file system of {source} cannot be shown to an unprivileged uid: {error.strerror}",
                hint="run as an ordinary user, or move the workspace to ext4, xfs, btrfs or tmpfs",
            ) from error
        finally:
            os.close(tree)
        return place

    def release(self, place: str) -> None:
        """Take a staged tree away again; a sandbox that was started with it keeps it."""
        mounts.detach(place)
        os.rmdir(place)

    def _outside(self, path: str) -> str:
        """Where this thread, whose tmpfs covers one of the host's directories, finds a host path."""
        return f"{self._place}/host{path}" if is_below(path, self._place) else path

    def _map(self, owner: tuple[int, int]) -> int:
        if owner not in self._maps:
            self._maps[owner] = mounts.identity_namespace(owner=owner, shown_as=self.uid)
        return self._maps[owner]

    def _copy_program(self, binary: Binary) -> str:
        if binary.libraries is None:
            return str(binary.path)
        folder = f"{self._place}/{next(self._numbers)}"
        program = f"{folder}/{binary.path.parent.parent.name}/{binary.path.parent.name}/{binary.path.name}"
        os.makedirs(os.path.dirname(program))
        shutil.copyfile(self._outside(str(binary.path)), program)
        os.chmod(program, 0o755)  # noqa: S103 (it is to be executed by another uid)
        libraries = f"{folder}/{binary.libraries.name}"
        shutil.copytree(self._outside(str(binary.libraries)), libraries, copy_function=shutil.copyfile)
        return program


def sandbox_uid() -> int:
    """Return an unprivileged uid that belongs to nobody and exists in this user namespace.

    Raises:
        SandboxUnavailable: There is none.
    """
    for uid in SANDBOX_UIDS:
        if _is_mapped(uid, "/proc/self/uid_map") and _is_mapped(uid, "/proc/self/gid_map"):
            try:
                pwd.getpwuid(uid)
            except KeyError:
                return uid
    raise SandboxUnavailable(
        f"started by root without a uid to drop to ({SANDBOX_UIDS.start} to {SANDBOX_UIDS.stop - 1})",
        hint="run as an ordinary user, or map that range into this container",
    )


def _is_mapped(number: int, table: str) -> bool:
    with open(table, encoding="ascii") as lines:
        rows = [tuple(map(int, line.split())) for line in lines]
    return any(first <= number < first + count for first, _, count in rows)

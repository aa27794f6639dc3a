"""What a root broker prepares so that bubblewrap can run as an unprivileged uid.

bubblewrap started by root leaves /proc/sys/kernel/core_pattern writable inside, so it never is. An
unprivileged uid in turn can neither reach a tree below /root nor own root's files; a copy of the mount that
shows the tree's owner as that uid gives it exactly the tree and nothing else. All of it lies on a tmpfs that
only the spawning thread's mount namespace knows, so nothing is left on the host, however the broker ends.
"""

from __future__ import annotations

import errno
import itertools
import os
import pwd
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandboxes.bubblewrap import mounts
from sandboxes.bubblewrap.binary import Binary
from sandboxes.bubblewrap.rootfs import is_below
from sandboxes.errors import SandboxError, SandboxUnavailable

SANDBOX_UIDS = range(64200, 64300)

_PLACES = ("/srv", "/media", "/mnt", "/opt", "/run", "/var/tmp", "/tmp")  # noqa: S108
_SIZE_BYTES = 16 * 1024 * 1024
_EVERYBODY = 0o005
_HINT = "run as an ordinary user, or move the workspace to ext4, xfs, btrfs or tmpfs"
# The file system knows no such mounts, or belongs to the user namespace of somebody else.
_CANNOT_MAP = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS})

Lower = Literal["direct", "id-mapped", "copied"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedTree:
    """Where the unprivileged uid owns the user's tree, and what makes it look so."""

    place: str
    lower: Lower


class Staging:
    """Trees and programs staged for one unprivileged uid. Belongs to the thread that made it."""

    def __init__(self) -> None:
        self.uid = sandbox_uid()
        self._numbers = itertools.count(1)
        self._maps: dict[tuple[int, int], int] = {}
        self._trees: dict[str, str] = {}
        self._programs: dict[Path, str] = {}
        mounts.enter_private_mount_namespace()
        # This thread's alone by now, and what is staged has to be readable for the unprivileged uid.
        os.umask(0o022)
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
            self._trees[source] = self._system_tree(source)
        return self._trees[source]

    def tree(self, source: str) -> StagedTree:
        """Show the unprivileged uid a tree as its own, read-only; ``release`` its place after the start.

        Raises:
            SandboxUnavailable: Neither an id-mapped clone nor a copy of it can be had.
        """
        try:
            try:
                return StagedTree(place=self._cloned(source, mapped=True), lower="id-mapped")
            except OSError as error:
                if error.errno not in _CANNOT_MAP:
                    raise
                return StagedTree(place=self._copied(source), lower="copied")
        except SandboxUnavailable:
            raise
        except (OSError, SandboxError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SandboxUnavailable(
                f"the file system of {source} cannot be shown to an unprivileged uid: {reason}", hint=_HINT
            ) from error

    def _system_tree(self, source: str) -> str:
        """Show a tree that is only read: what everybody may read needs no other owner."""
        try:
            return self._cloned(source, mapped=True)
        except OSError as error:
            if error.errno not in _CANNOT_MAP:
                raise SandboxUnavailable(f"{source} cannot be staged: {error.strerror}") from error
        if os.stat(self._outside(source)).st_mode & _EVERYBODY != _EVERYBODY:
            raise SandboxUnavailable(
                f"{source} cannot be shown to an unprivileged uid: not everybody may read it",
                hint=f"chmod o+rx {source}",
            )
        try:
            return self._cloned(source, mapped=False)
        except OSError as error:
            raise SandboxUnavailable(f"{source} cannot be staged: {error.strerror}") from error

    def _cloned(self, source: str, *, mapped: bool) -> str:
        outside = self._outside(source)
        status = os.stat(outside)
        with ExitStack() as done, ExitStack() as undo:
            tree = mounts.clone_tree(outside)
            done.callback(os.close, tree)
            identity_map = self._map((status.st_uid, status.st_gid)) if mapped else None
            mounts.restrict_tree(tree, identity_map=identity_map)
            place = self._new_place(undo)
            mounts.attach_tree(tree, place)
            undo.pop_all()
        return place

    def _copied(self, source: str) -> str:
        # Rarely needed, and it brings all of the workspace package along.
        from sandboxes.bubblewrap import copying

        with ExitStack() as done, ExitStack() as undo:
            # Without the mounts below it, which an overlay would not show either.
            tree = mounts.clone_tree(self._outside(source), recursive=False)
            done.callback(os.close, tree)
            room = copying.room_here()
            place = self._new_place(undo)
            mounts.mount_tmpfs(place, f"size={max(room.size_bytes, 1)},nr_inodes={room.entries + 2},mode=700")
            undo.callback(mounts.detach, place)
            target = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            done.callback(os.close, target)
            try:
                copying.copy_tree(tree, target, shown_as=self.uid, room=room)
            except copying.TooLarge:
                raise SandboxUnavailable(
                    f"the file system of {source} cannot be shown to an unprivileged uid, and its "
                    f"{copying.extent_of(tree)} are more than a copy in memory may hold here ({room})",
                    hint=_HINT,
                ) from None
            mounts.make_read_only(place)
            undo.pop_all()
        return place

    def _new_place(self, undo: ExitStack) -> str:
        place = f"{self._place}/{next(self._numbers)}"
        os.mkdir(place, 0o755)
        undo.callback(os.rmdir, place)
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

"""What a sandbox needs of the host while its container starts: layers, covers, a socket, a few files of /etc.

All of it lies in one directory that is private to the broker and named after the sandbox. A root broker
keeps the changes on a tmpfs with exact limits and shows the user's tree through an id-mapped clone of its
mount; the engine's own mounts hold both, so they are taken away again as soon as the container runs, and a
broker that is killed later leaves nothing of them. An ordinary user's tree is used as it is, and the changes
lie on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

from sandboxes.base import SandboxSpec
from sandboxes.bubblewrap import copying, mounts
from sandboxes.bubblewrap.rootfs import is_below
from sandboxes.bubblewrap.staging import SANDBOX_UIDS, sandbox_uid
from sandboxes.docker.config import CHANNEL, HOSTNAME, Bind, Overlay
from sandboxes.docker.ownership import Owner
from sandboxes.errors import SandboxUnavailable

OWNER_FILE: Final = "owner"
Lower = Literal["direct", "id-mapped", "copied"]

_ROOT_PLACE: Final = "/run/remit-docker"
_USER_FOLDER: Final = "remit-docker"
_MOST_LAYERS: Final = 8
_PARTS: Final = ("lower", "store", "channel", "etc", "empty")
_CANNOT_MAP: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS})


class Place:
    """The directory of one sandbox. Made, filled and released in threads, never on the event loop."""

    def __init__(self, sandbox: str, spec: SandboxSpec, *, shared: bool = True) -> None:
        self._spec = spec
        self._shared = shared
        self._mounted: list[str] = []
        self._is_there = False
        self._is_root = os.geteuid() == 0
        self.uid = sandbox_uid() if self._is_root else os.geteuid()
        self.gid = self.uid if self._is_root else os.getegid()
        if not shared:
            # Within what an engine with users of its own can map.
            self.uid = self.gid = SANDBOX_UIDS.start
        self.folder = Path(places_folder()) / sandbox
        self.lower: Lower = "direct"
        self.upper_fd = -1

    @property
    def socket_path(self) -> str:
        """Where the host listens for the guest."""
        return str(self.folder / "channel" / "channel")

    def build(self) -> None:
        """Make everything.

        Raises:
            SandboxUnavailable: The user's tree cannot be shown to the sandbox.
            OSError: This host refuses a mount or a file.
        """
        self.folder.mkdir(mode=0o700)
        self._is_there = True
        try:
            (self.folder / OWNER_FILE).write_text(str(Owner.this_process()), encoding="utf-8")
            if not self._shared:
                return
            for part in _PARTS:
                (self.folder / part).mkdir(mode=0o700)
            self._show_lower()
            self._make_store()
            self._make_empty()
            self._write_etc()
        except BaseException:
            self.forget()
            raise

    def overlay(self, volume: str) -> Overlay:
        """Return the workspace's layers as the engine is to mount them."""
        return Overlay(
            volume=volume,
            lower=str(self.folder / "lower"),
            upper=str(self.folder / "store" / "upper"),
            work=str(self.folder / "store" / "work"),
            user_marks=not self._is_root,
        )

    def binds(self, *, with_socket: bool) -> tuple[Bind, ...]:
        """Return what else is mounted: the channel, files of /etc, and the covers of the workspace."""
        found = [Bind(source=str(self.folder / "etc" / name), target=f"/etc/{name}") for name in _ETC]
        if with_socket:
            found.append(Bind(source=str(self.folder / "channel"), target=CHANNEL))
        return (*found, *self._covers())

    def release(self) -> None:
        """Take away the mounts, which only the start needed; those of the container hold what was in them."""
        while self._mounted:
            _detach(self._mounted.pop())

    def remove(self) -> None:
        """Take away all that nobody needs once the container is gone: for root everything but the open layer.

        An ordinary user's changes lie in the directory itself; it goes with ``forget``.
        """
        self.release()
        if self._is_root and self._shared:
            remove_tree(str(self.folder))
            self._is_there = False

    def forget(self) -> None:
        """Take away everything, the layer too."""
        self.release()
        if self._is_there:
            remove_tree(str(self.folder))
            self._is_there = False
        if self.upper_fd >= 0:
            os.close(self.upper_fd)
            self.upper_fd = -1

    def _show_lower(self) -> None:
        place, tree = str(self.folder / "lower"), os.path.realpath(self._spec.workspace)
        if not self._is_root:
            os.rmdir(place)
            os.symlink(tree, place)
            return
        try:
            status = os.stat(tree)
            with ExitStack() as done:
                clone = mounts.clone_tree(tree)
                done.callback(os.close, clone)
                identity = mounts.identity_namespace(owner=(status.st_uid, status.st_gid), shown_as=self.uid)
                done.callback(os.close, identity)
                mounts.restrict_tree(clone, identity_map=identity)
                mounts.attach_tree(clone, place)
            self._mounted.append(place)
            self.lower = "id-mapped"
        except OSError as error:
            if error.errno not in _CANNOT_MAP:
                raise
            self._copy_lower(tree, place)

    def _copy_lower(self, tree: str, place: str) -> None:
        room = copying.room_here()
        mounts.mount_tmpfs(place, f"size={max(room.size_bytes, 1)},nr_inodes={room.entries + 2},mode=700")
        self._mounted.append(place)
        with ExitStack() as done:
            source = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            done.callback(os.close, source)
            target = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            done.callback(os.close, target)
            try:
                copying.copy_tree(source, target, shown_as=self.uid, room=room)
            except copying.TooLarge:
                raise SandboxUnavailable(
                    f"the file system of {tree} cannot be shown to another uid, and its "
                    f"{copying.extent_of(source)} are more than a copy in memory may hold here ({room})",
                    hint="move the workspace to ext4, xfs, btrfs or tmpfs",
                ) from None
        mounts.make_read_only(place)
        self.lower = "copied"

    def _make_store(self) -> None:
        store, limits = str(self.folder / "store"), self._spec.limits
        if self._is_root:
            mounts.mount_tmpfs(store, f"size={limits.disk_bytes},nr_inodes={limits.inodes},mode=700")
            self._mounted.append(store)
        for name in ("upper", "work"):
            os.mkdir(f"{store}/{name}", 0o700)
            os.chown(f"{store}/{name}", self.uid, self.gid)
        mode = stat.S_IMODE(os.stat(self._spec.workspace).st_mode)
        os.chmod(f"{store}/upper", (mode & 0o777) | 0o700)
        self.upper_fd = os.open(f"{store}/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _make_empty(self) -> None:
        (self.folder / "empty" / "directory").mkdir(mode=0o555)
        (self.folder / "empty" / "file").touch(mode=0o444)
        os.chmod(self.folder / "empty", 0o555)  # noqa: S103 (what is in it is empty)
        for name in ("directory", "file"):
            os.chmod(self.folder / "empty" / name, 0o555 if name == "directory" else 0o444)

    def _write_etc(self) -> None:
        user = f"remit:x:{self.uid}:{self.gid}:remit:/tmp/home:/bin/sh"
        texts = {
            "passwd": f"root:x:0:0:root:/:/bin/sh\n{user}\nnobody:x:65534:65534::/:/bin/false\n",
            "group": f"root:x:0:\nremit:x:{self.gid}:\nnogroup:x:65534:\n",
            "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
        }
        for name in _ETC:
            path = self.folder / "etc" / name
            path.write_text(texts[name], encoding="ascii")
            path.chmod(0o444)

    def _covers(self) -> Iterator[Bind]:
        """Return a bind for everything hidden or protected that lies below nothing hidden.

        A link cannot carry a mount: what it leads to is named instead.
        """
        hidden = [path for path in self._spec.hidden if self._kind(path) is not None]
        shallow = [path for path in hidden if not _lies_in_another(path, hidden)]
        kept = [path for path in self._spec.read_only if not any(is_below(path, other) for other in shallow)]
        for path in sorted(kept):
            if self._kind(path) is not None:
                yield Bind(source=str(self.folder / "lower" / path), target=f"{self._spec.mount}/{path}")
        for path in sorted(shallow):
            source = str(self.folder / "empty" / (self._kind(path) or "file"))
            yield Bind(source=source, target=f"{self._spec.mount}/{path}")

    def _kind(self, path: str) -> Literal["file", "directory"] | None:
        mode = os.lstat(self._spec.workspace / path).st_mode
        if stat.S_ISLNK(mode):
            return None
        return "directory" if stat.S_ISDIR(mode) else "file"


_ETC: Final = ("passwd", "group", "hosts")


def places_folder() -> str:
    """Return the private directory in which every sandbox of this user has its own, making it if need be.

    Raises:
        SandboxUnavailable: Somebody else could write there.
    """
    if os.geteuid() == 0:
        folder = _ROOT_PLACE
    else:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        folder = (
            f"{runtime}/{_USER_FOLDER}"
            if runtime
            else f"{tempfile.gettempdir()}/{_USER_FOLDER}-{os.geteuid()}"
        )
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SandboxUnavailable(f"{folder} is not a private directory of this user", hint=f"remove {folder}")
    return folder


def build_place(sandbox: str, spec: SandboxSpec, *, shared: bool = True) -> Place:
    """Make a place and everything in it; one that is not shared with the engine is an empty directory.

    Raises:
        SandboxUnavailable: The user's tree cannot be shown to the sandbox.
    """
    place = Place(sandbox, spec, shared=shared)
    place.build()
    return place


def remove_place(folder: Path) -> None:
    """Take away the directory of a sandbox that has nobody left, with the mounts in it."""
    for part in ("lower", "store"):
        # Not asked whether it is a mount: one of the same file system looks like an ordinary directory.
        with contextlib.suppress(OSError):
            for _ in range(_MOST_LAYERS):
                _detach(str(folder / part))
    remove_tree(str(folder))


def _lies_in_another(path: str, others: list[str]) -> bool:
    return any(path != other and is_below(path, other) for other in others)


def _detach(place: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        mounts.detach(place)


def remove_tree(folder: str) -> None:
    """Remove a directory with all that is in it, whatever modes a command has given that."""
    # The overlay's own directory has no permissions at all, and only its parent is needed to remove it.
    with contextlib.suppress(OSError):
        os.rmdir(f"{folder}/store/work/work")
    if os.geteuid() != 0:
        _unlock(folder)
    with contextlib.suppress(OSError):
        os.chmod(f"{folder}/empty", 0o700)
    # Whose it is goes last, and stays where something cannot be removed: so it is known for a leftover.
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != OWNER_FILE:
                os.unlink(entry.path)
        if set(os.listdir(folder)) <= {OWNER_FILE}:
            shutil.rmtree(folder, ignore_errors=True)


def _unlock(folder: str) -> None:
    """Give the owner every right to the directories below; links are no directories."""
    for place, names, _ in os.walk(folder):
        for name in names:
            path = f"{place}/{name}"
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)

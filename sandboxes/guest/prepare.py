"""Build what commands see: the workspace over the user's tree, the writable tmpfs mounts, and the covers.

Everything is mounted in a mount namespace of the guest's own, because bwrap ends in a second user
namespace that does not own the one it mounted in. The changes live in a size-limited tmpfs, so a full
disk is exact and nothing is left on the host.
"""

from __future__ import annotations

import errno
import os

from sandboxes.guest import paths, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AREA = "/.remit"
LOWER = AREA + "/lower"
STORE = AREA + "/store"
EMPTY = AREA + "/empty"
HOME = "/tmp/home"

_COMMON = system.MS_NOSUID | system.MS_NODEV


class Workspace:
    """The workspace as file operations and commands use it."""

    def __init__(self, mount: str, root: int, upper: int, strategy: str) -> None:
        self.mount = mount
        self.root = root
        self.upper = upper
        self.strategy = strategy


def prepare(settings: dict[str, Any]) -> Workspace:
    """Mount everything that the settings ask for and return the workspace."""
    mount = settings["mount"]
    paths.openat2_missing = settings["opener"] == "walk"
    system.unshare_mounts()
    _writable_areas(settings)
    os.makedirs(system.fs_bytes(mount), exist_ok=True)
    strategy = _mount_workspace(mount, settings)
    _mount_empty()
    root = os.open(system.fs_bytes(mount), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # A cover shows nothing of the mounts below the place it was taken from, so what hides comes last, and
    # what lies deeper before what hides the way to it.
    for path in sorted(settings["read_only"]):
        _make_read_only(root, path)
    for path in sorted(settings["hidden"], reverse=True):
        _hide(root, path)
    upper = os.open(STORE + "/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return Workspace(mount, root, upper, strategy)


def _writable_areas(settings: dict[str, Any]) -> None:
    temporary = "size=%d,nr_inodes=%d,mode=1777" % (settings["tmp_bytes"], settings["tmp_inodes"])
    system.mount("tmpfs", "/tmp", "tmpfs", _COMMON, temporary)
    os.mkdir(HOME, 0o755)
    shared = "size=%d,nr_inodes=%d,mode=1777" % (settings["shm_bytes"], 256)
    system.mount("tmpfs", "/dev/shm", "tmpfs", _COMMON | system.MS_NOEXEC, shared)
    store = "size=%d,nr_inodes=%d,mode=700" % (settings["disk_bytes"], settings["inodes"])
    system.mount("tmpfs", STORE, "tmpfs", _COMMON, store)


def _mount_workspace(mount: str, settings: dict[str, Any]) -> str:
    lower = os.stat(LOWER)
    os.mkdir(STORE + "/upper")
    os.chmod(STORE + "/upper", lower.st_mode & 0o777 | 0o700)
    if settings["strategy"] != "copy" and _holds_user_attributes():
        os.mkdir(STORE + "/work", 0o700)
        options = "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,userxattr" % (LOWER, STORE, STORE)
        try:
            system.mount("overlay", mount, "overlay", _COMMON, options)
        except OSError as error:
            if settings["strategy"] == "overlay":
                raise
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENODEV, errno.EOPNOTSUPP, errno.ELOOP):
                raise
        else:
            return "overlay"
    if settings["strategy"] == "overlay":
        raise OSError(errno.EOPNOTSUPP, "tmpfs holds no user attributes", mount)
    paths.copy_tree(system.fs_bytes(LOWER), system.fs_bytes(STORE + "/upper"))
    system.mount(STORE + "/upper", mount, None, system.MS_BIND)
    return "copy"


def _holds_user_attributes() -> bool:
    """Whether overlay can keep its marks on this tmpfs (Linux 6.6)."""
    try:
        os.setxattr(STORE + "/upper", "user.overlay.probe", b"y")
        os.removexattr(STORE + "/upper", "user.overlay.probe")
    except OSError:
        return False
    return True


def _mount_empty() -> None:
    options = "size=4096,nr_inodes=3,mode=755"
    system.mount("tmpfs", EMPTY, "tmpfs", _COMMON, options)
    os.mkdir(EMPTY + "/directory", 0o555)
    os.close(os.open(EMPTY + "/file", os.O_CREAT | os.O_WRONLY, 0o444))
    system.mount("", EMPTY, None, system.MS_REMOUNT | system.MS_RDONLY | _COMMON, options)


def _hide(root: int, path: str) -> None:
    target = _open_for_cover(root, path)
    if target is None:
        return
    is_directory = paths.is_directory(target)
    source = EMPTY + ("/directory" if is_directory else "/file")
    _bind_read_only(source, target)


def _make_read_only(root: int, path: str) -> None:
    target = _open_for_cover(root, path)
    if target is None:
        return
    _bind_read_only("/proc/self/fd/%d" % target, target)


def _bind_read_only(source: str, target: int) -> None:
    place = "/proc/self/fd/%d" % target
    system.mount(source, place, None, system.MS_BIND)
    # The descriptor still names what lies below the new mount; the path it had leads to the top.
    system.mount(
        "", os.readlink(place.encode()), None, system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | _COMMON
    )
    os.close(target)


def _open_for_cover(root: int, path: str) -> int | None:
    """Open what is to be covered; a symbolic link cannot be a mount point: its target is to be named."""
    descriptor = paths.open_beneath(root, system.fs_bytes(path), os.O_PATH | os.O_NOFOLLOW)
    if paths.is_symlink(descriptor):
        os.close(descriptor)
        return None
    return descriptor

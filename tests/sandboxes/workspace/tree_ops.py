"""Operations on a tree: played by tests in a copy, or as a script in an overlay of its own.

As a script: ``tree_ops.py LOWER STORE`` with a JSON list of operations on stdin; STORE gets ``upper`` and
``work``; prints a snapshot of the merged tree. Bytes travel as latin-1 text.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import sys


def play(root, operations):
    """Do each operation below root; one that the file system refuses is skipped."""
    for name, *arguments in operations:
        try:
            OPERATIONS[name](os.fsencode(root), *arguments)
        except OSError:
            continue


def snapshot(root):
    """Describe everything below root: path → (kind, mode, content digest or link target)."""
    found = {}
    pending = [b""]
    root = os.fsencode(root)
    while pending:
        here = pending.pop()
        for name in os.listdir(os.path.join(root, here)):
            path = os.path.join(here, name)
            full = os.path.join(root, path)
            status = os.lstat(full)
            found[path.decode("latin-1")] = describe(full, status)
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
    return found


def describe(full, status):
    mode = status.st_mode & 0o777
    if stat.S_ISREG(status.st_mode):
        with open(full, "rb") as file:
            return ["file", mode, hashlib.sha256(file.read()).hexdigest()]
    if stat.S_ISDIR(status.st_mode):
        return ["directory", mode, None]
    if stat.S_ISLNK(status.st_mode):
        return ["symlink", None, os.readlink(full).decode("latin-1")]
    return ["other", None, None]


def at(root, path):
    return os.path.join(root, *[part.encode("latin-1") for part in path])


def write(root, path, content, mode):
    full = at(root, path)
    with open(
        os.open(full, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK), "wb"
    ) as file:
        file.write(content.encode("latin-1"))
    os.chmod(full, mode)


def touch(root, path):
    """Open for writing and write nothing: an overlay copies the file up."""
    os.close(os.open(at(root, path), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK))


def chmod(root, path, mode):
    full = at(root, path)
    if not os.path.islink(full):
        os.chmod(full, mode)


def remove(root, path):
    full = at(root, path)
    if os.path.isdir(full) and not os.path.islink(full):
        shutil.rmtree(full)
    else:
        os.unlink(full)


def rename(root, path, to):
    """Move as mv does: an overlay refuses to rename a directory that comes from below."""
    source, target = at(root, path), at(root, to)
    if (
        os.path.lexists(target)
        or not os.path.isdir(os.path.dirname(target))
        or (target + b"/").startswith(source + b"/")
    ):
        return
    if os.path.isdir(source) and any(state[0] == "other" for state in snapshot(source).values()):
        return
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(source, target, symlinks=True)
        shutil.rmtree(source)


def remake(root, path):
    """Put an empty directory in the place of another: an overlay marks it opaque."""
    full = at(root, path)
    if os.path.isdir(full) and not os.path.islink(full):
        shutil.rmtree(full)
        os.mkdir(full)


OPERATIONS = {
    "remake": remake,
    "write": write,
    "touch": touch,
    "chmod": chmod,
    "remove": remove,
    "mkdir": lambda root, path, mode: (os.mkdir(at(root, path)), os.chmod(at(root, path), mode)),
    "symlink": lambda root, path, target: os.symlink(target.encode("latin-1"), at(root, path)),
    "rename": rename,
    "link": lambda root, path, to: os.link(at(root, path), at(root, to), follow_symlinks=False),
    "mkfifo": lambda root, path: os.mkfifo(at(root, path)),
}


def mount_overlay(lower, store):
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    flags = 0x00020000 | (0 if uid == 0 else 0x10000000)
    checked(libc.unshare(flags), "unshare")
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    checked(libc.mount(None, b"/", None, 0x4000 | 0x40000, None), "private")
    for name in ("upper", "work", "merged"):
        os.mkdir(os.path.join(store, name))
    options = f"lowerdir={lower},upperdir={store}/upper,workdir={store}/work,userxattr"
    merged = os.path.join(store, "merged")
    checked(libc.mount(b"overlay", merged.encode(), b"overlay", 0, options.encode()), "overlay")
    return merged


def checked(result, what):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    merged_tree = mount_overlay(sys.argv[1], sys.argv[2])
    play(merged_tree, json.load(sys.stdin))
    json.dump(snapshot(merged_tree), sys.stdout)

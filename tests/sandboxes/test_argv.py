"""The argument vector is the security policy: a change of it is a change of this test."""

from __future__ import annotations

import marshal
from pathlib import Path

import sandboxes.guest
from sandboxes.bubblewrap.argv import Plan, bwrap_argv
from sandboxes.bubblewrap.image import START, guest_image
from sandboxes.bubblewrap.rootfs import is_below, mount_objection, root_file_system

PLAN = Plan(
    bwrap="/staged/bwrap",
    interpreter="/opt/python/bin/python3.12",
    lower="/staged/7",
    mount="/testbed",
    binds=(("/usr", "/usr"), ("/staged/1", "/opt/python")),
    links=(("usr/bin", "/bin"),),
    copies=((11, "/etc/passwd"), (12, "/.remit/lib/sandboxes/guest/main.pyc")),
    channel=9,
)


def test_the_whole_configuration():
    assert " ".join(bwrap_argv(PLAN)).replace(START, "START") == (
        "/staged/bwrap"
        " --unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try"
        " --uid 1000 --gid 1000 --hostname remit"
        " --as-pid-1 --die-with-parent --new-session --clearenv"
        " --cap-drop ALL --cap-add CAP_SYS_ADMIN --cap-add CAP_SYS_PTRACE"
        " --cap-add CAP_DAC_OVERRIDE --cap-add CAP_FOWNER"
        " --ro-bind /usr /usr --ro-bind /staged/1 /opt/python"
        " --symlink usr/bin /bin"
        " --proc /proc --dev /dev --dir /tmp"
        " --dir /.remit --dir /.remit/store --dir /.remit/empty"
        " --ro-bind /staged/7 /.remit/lower"
        " --file 11 /etc/passwd --file 12 /.remit/lib/sandboxes/guest/main.pyc"
        " --dir /testbed --chdir / --remount-ro /dev --remount-ro /"
        " -- /opt/python/bin/python3.12 -I -S -c START 9"
    )


def test_nothing_but_the_workspace_comes_from_outside_usr_etc_and_the_interpreter():
    system = root_file_system()

    for path in system.trees:
        assert any(
            is_below(path, place) for place in ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
        )
    assert is_below(system.interpreter, system.prefix or "/usr")


def test_the_guest_is_code_of_the_whole_package_and_its_digest_is_stable():
    image = guest_image()
    names = [name for name, _ in marshal.loads(image.content)]

    modules = {path.stem for path in Path(sandboxes.guest.__file__).parent.glob("[!_]*.py")}
    # The program of a container that holds a volume.
    assert sorted(names) == sorted(modules - {"holding"})
    assert image.digest == guest_image.__wrapped__().digest


def test_a_place_below_another_is_told_by_whole_components():
    assert is_below("/a/b", "/a")
    assert is_below("/a", "/a")
    assert not is_below("/ab", "/a")
    assert mount_objection("/workspace") is None

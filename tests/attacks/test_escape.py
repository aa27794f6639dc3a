"""A command tries to reach the host. Judged by canaries on the host, or by what the kernel answered."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

import pytest

from sandboxes.base import ExecRequest

pytestmark = pytest.mark.anyio

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
CANARY = "CANARY-7f3a9d"


def core_pattern():
    return CORE_PATTERN.read_text()


def exists(path):
    return Path(path).exists()


def processes_from(pid):
    pids = [pid]
    for parent in pids:
        pids += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return pids


def uids(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return status.split("Uid:")[1].split("\n")[0].split()


async def test_kernel_settings_cannot_be_opened_for_writing(opened, attack):
    before = core_pattern()

    async with opened() as sandbox:
        result = await sandbox.exec(
            attack("""
            for folder, _, names in os.walk("/proc/sys"):
                for name in names:
                    if name == "ns_last_pid":
                        continue  # belongs to the cell's own PID namespace, and writing it takes a capability
                    try:
                        os.close(os.open(os.path.join(folder, name), os.O_WRONLY))
                        print("WRITABLE", os.path.join(folder, name))
                    except OSError:
                        pass
            for path in ("/proc/sysrq-trigger", "/proc/1/oom_score_adj", "/proc/kcore", "/dev/mem"):
                try:
                    os.close(os.open(path, os.O_WRONLY))
                    print("WRITABLE", path)
                except OSError:
                    pass
            """)
        )

    assert result.exit_code == 0, result.output
    assert b"WRITABLE" not in result.output
    assert core_pattern() == before


async def test_the_brokers_environment_is_not_found_anywhere(opened, attack, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)

    async with opened() as sandbox:
        result = await sandbox.exec(
            attack("""
            for pid in os.listdir("/proc"):
                for name in ("environ", "cmdline"):
                    try:
                        sys.stdout.buffer.write(open(f"/proc/{pid}/{name}", "rb").read())
                    except OSError:
                        pass
            """)
        )

    assert CANARY.encode() not in result.output
    assert str(Path.home() / ".config").encode() not in result.output


async def test_the_hosts_files_are_not_there(opened, tmp_path, tree, attack):
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    (tree / "out").symlink_to(secret)
    script = f"""
    cat {secret} out /proc/self/root{secret} /proc/1/root{secret} /.remit/lower/a.txt
    ls /home /root/.ssh /var /mnt /srv /sys /run /etc/shadow
    echo canary > /usr/canary; touch /etc/x
    """

    async with opened() as sandbox:
        result = await sandbox.exec(ExecRequest(argv=("sh", "-c", script)))

    assert CANARY.encode() not in result.output
    assert not exists("/usr/canary")
    assert secret.read_text() == CANARY


async def test_no_new_namespace_no_mount_and_no_privilege(opened, attack):
    async with opened() as sandbox:
        result = await sandbox.exec(
            attack("""
            for flags in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000):
                if syscall(272, flags) >= 0:
                    print("UNSHARED", hex(flags))
            if syscall(165, b"tmpfs", b"/tmp", b"tmpfs", 0, None) >= 0: print("MOUNTED")
            if syscall(166, b"/.remit", 2) >= 0: print("UNMOUNTED")
            if syscall(161, b"/tmp") >= 0: print("CHROOT")
            if syscall(155, b"/tmp", b"/tmp") >= 0: print("PIVOTED")
            if syscall(428, -100, b"/", 1) >= 0: print("CLONED TREE")
            for kind in ("user", "mnt", "pid", "net"):
                try:
                    descriptor = os.open(f"/proc/1/ns/{kind}", os.O_RDONLY)
                    print("OPENED", kind)
                except OSError:
                    pass
            try:
                os.setuid(0)
                print("ROOT")
            except OSError:
                pass
            """)
        )
        nested = await sandbox.exec(ExecRequest(argv=("unshare", "-U", "true")))
        setuid = await sandbox.exec(ExecRequest(argv=("sh", "-c", "su -c 'echo ROOT' </dev/null; id -u")))

    assert result.output == b""
    assert nested.exit_code != 0
    assert b"ROOT" not in setuid.output
    assert b"1000" in setuid.output


async def test_keys_sockets_and_rings_that_reach_past_the_namespaces_are_refused(opened, attack):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(ctypes.c_long(248), b"user", b"remit-canary", CANARY.encode(), len(CANARY), -3)

    async with opened() as sandbox:
        result = await sandbox.exec(
            attack(f"""
            key = syscall(249, b"user", b"remit-canary", None, -3)
            if key > 0: print("KEY", key)
            for ring in (-1, -2, -3, -4, -5):
                buffer = ctypes.create_string_buffer(4096)
                if syscall(250, 11, ring, buffer, 4096) > 0: print("RING", ring)
            if {CANARY!r} in open("/proc/keys").read(): print("KEYS FILE")
            params = ctypes.create_string_buffer(120)
            if syscall(425, 4, params) >= 0: print("IO_URING")
            import socket
            for family in (40, 38, 17, 29, 30):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
                    try:
                        socket.socket(family, kind).close()
                        print("FAMILY", family)
                    except OSError:
                        pass
            if syscall(319, b"x", 0) >= 0: print("MEMFD")
            if syscall(321, 0, None, 0) >= 0: print("BPF")
            if syscall(323, 0) >= 0: print("USERFAULTFD")
            """)
        )

    assert result.exit_code == 0, result.output
    assert result.output == b""


async def test_terminal_input_cannot_be_pushed(opened, attack):
    async with opened() as sandbox:
        result = await sandbox.exec(
            attack("""
            import fcntl
            for number in (0, 1, 2):
                try:
                    fcntl.ioctl(number, 0x5412, b"x")
                    print("PUSHED")
                except OSError:
                    pass
            try:
                open("/dev/tty")
                print("TTY")
            except OSError:
                pass
            """)
        )

    assert result.output == b""


async def test_the_hosts_network_and_abstract_sockets_are_out_of_reach(opened, attack):
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as abstract:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        abstract.bind("\0remit-canary")
        abstract.listen()
        port = listener.getsockname()[1]

        async with opened() as sandbox:
            result = await sandbox.exec(
                attack(f"""
                import socket
                for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "1.1.1.1"):
                    try:
                        socket.create_connection((address, {port}), timeout=0.3)
                        print("CONNECTED", address)
                    except OSError:
                        pass
                try:
                    socket.socket(socket.AF_UNIX).connect("\\0remit-canary")
                    print("ABSTRACT")
                except OSError:
                    pass
                """)
            )
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()

    assert result.output == b""


async def test_devices_are_only_the_harmless_ones_and_none_can_be_made(opened, attack):
    async with opened() as sandbox:
        result = await sandbox.exec(
            attack("""
            import stat
            for name in os.listdir("/dev"):
                if name not in ("null zero full random urandom tty fd stdin stdout stderr"
                                " ptmx pts shm console core").split():
                    print("DEVICE", name)
            for place in ("/workspace/d", "/tmp/d", "/dev/shm/d", "/dev/d"):
                try:
                    os.mknod(place, 0o666 | stat.S_IFBLK, os.makedev(254, 0))
                    os.close(os.open(place, os.O_RDONLY))
                    print("MADE", place)
                except OSError:
                    pass
            try:
                open("/dev/x", "w")
                print("DEV WRITABLE")
            except OSError:
                pass
            """)
        )

    assert result.output == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="the guest lets no ordinary user look at its descriptors")
async def test_inherited_descriptors_of_the_broker_do_not_reach_the_sandbox(opened, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    descriptor = os.open(secret, os.O_RDONLY)
    os.set_inheritable(descriptor, True)

    try:
        async with opened() as sandbox:
            held = {
                os.readlink(f"/proc/{sandbox.guest_pid}/fd/{name}")
                for name in os.listdir(f"/proc/{sandbox.guest_pid}/fd")
            }
    finally:
        os.close(descriptor)

    assert not [name for name in held if "secret" in name]


async def test_nothing_inside_has_the_uid_of_root(opened):
    async with opened() as sandbox:
        seen = {pid: uids(pid) for pid in processes_from(sandbox.guest_pid)}

    assert len(seen) >= 2
    for pid, held in seen.items():
        assert "0" not in held, pid


async def test_a_planted_git_hook_is_not_run_by_anything_of_ours(opened, tmp_path):
    canary = tmp_path / "canary"
    hook = f"#!/bin/sh\\ntouch {canary}\\n"
    script = f"git init -q . 2>/dev/null; mkdir -p .git/hooks; printf '{hook}' > .git/hooks/post-checkout"

    async with opened() as sandbox:
        await sandbox.exec(ExecRequest(argv=("sh", "-c", script)))
        await sandbox.list_directory(".", recursive=True)

    assert not exists(canary)

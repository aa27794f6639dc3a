"""The system-call filter that every command in a sandbox runs under.

The filter is a list of refusals, not of permissions: real tool chains must work unchanged, and
namespaces, the empty capability sets and no-new-privileges already hold the boundary. What is refused
widens the kernel's attack surface (namespaces, mounts, bpf, io_uring, keys), reaches other processes
(ptrace, process_vm_*), escapes the accounting of a limit (memfd, System V memory, affinity, the buffers of
sockets) or reaches the host past the file system (AF_VSOCK, TIOCSTI).

Four answers: EPERM where a program must learn that it may not; ENOSYS where programs probe and fall
back; EAFNOSUPPORT for a socket family; success without effect for the size of a socket's buffers, which the
kernel itself cuts without a word. System calls newer than this list answer ENOSYS, and so do the
x32 ones, whose numbers lie above it. A 32-bit program's system call kills the process.

Cases it gets wrong on purpose: a debugger, `strace`, `unshare` and `memfd_create` do not work inside.
"""

from __future__ import annotations

import errno
import struct

from sandboxes.errors import SandboxUnavailable

Instruction = tuple[int, int, int, int]

_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16

# file_setattr (Linux 6.17): the newest system call that has been judged.
_NEWEST_KNOWN = 469

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; clone has no bit for CLONE_NEWTIME.
_CLONE_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0
_SOL_SOCKET, _SO_SNDBUF, _SO_RCVBUF = 1, 7, 8
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
_ADDR_NO_RANDOMIZE, _PERSONALITY_QUERY = 0x0040000, 0xFFFFFFFF
_PRIO_PROCESS, _PRIO_PGRP = 0, 1
_IOPRIO_WHO_PROCESS, _IOPRIO_WHO_PGRP = 1, 2

# Name: number on x86_64, number on aarch64 (None where it does not exist).
_JUDGED_BY_ARGUMENTS: dict[str, tuple[int | None, int | None]] = {
    "ioctl": (16, 29),
    "clone": (56, 220),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "setsockopt": (54, 208),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "personality": (135, 92),
}

_NOT_PERMITTED: dict[str, tuple[int | None, int | None]] = {
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "query_module": (178, None),
    "get_kernel_syms": (177, None),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "syslog": (103, 116),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "sched_setaffinity": (203, 122),
    "mbind": (237, 235),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
}

_NOT_THERE: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "msgget": (68, 186),
    "nfsservctl": (180, 42),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "_sysctl": (156, None),
}


def build_filter(machine: str) -> bytes:
    """Build the classic-BPF program for one machine, as `os.uname().machine` names it.

    The bytes are an array of 8-byte `sock_filter` instructions, ready for `PR_SET_SECCOMP` (seccomp(2)).

    Raises:
        SandboxUnavailable: There is no filter for this machine.
    """
    if machine not in _AUDIT_ARCH:
        raise SandboxUnavailable(
            f"no system-call filter for machine {machine!r}",
            hint=f"run on one of: {', '.join(_AUDIT_ARCH)}",
        )
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in _program(machine))


def refused_names() -> tuple[str, ...]:
    """Return the calls that a program must learn it may not make, whatever their arguments."""
    return tuple(_NOT_PERMITTED)


def _program(machine: str) -> list[Instruction]:
    column = tuple(_AUDIT_ARCH).index(machine)
    program = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_GREATER, 0, 1, _NEWEST_KNOWN),
        _refuse(errno.ENOSYS),
    ]
    for name, judge in _judges().items():
        program += _for_call(_JUDGED_BY_ARGUMENTS[name][column], judge)
    for numbers in _NOT_PERMITTED.values():
        program += _for_call(numbers[column], [_refuse(errno.EPERM)])
    for numbers in _NOT_THERE.values():
        program += _for_call(numbers[column], [_refuse(errno.ENOSYS)])
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _judges() -> dict[str, list[Instruction]]:
    """Give for each call that is judged by its arguments the instructions that end it.

    Arguments that the kernel takes as 32-bit integers are compared in their low half, as the kernel does.
    """
    allow = [(_RETURN, 0, 0, _ALLOW)]
    families = (_AF_UNIX, _AF_INET, _AF_INET6)
    own_process = [*_require(0, (0,), errno.EPERM), *allow]
    return {
        "ioctl": [*_forbid(1, (_TIOCSTI, _TIOCLINUX, _TIOCSETD), errno.EPERM), *allow],
        "clone": [_load(0), (_JUMP_ANY_BIT, 0, 1, _CLONE_NEW), _refuse(errno.EPERM), *allow],
        "socket": [
            *_require(0, (*families, _AF_NETLINK), errno.EAFNOSUPPORT),
            *_unless(0, (*families,), _require(2, (_NETLINK_ROUTE,), errno.EPROTONOSUPPORT)),
            *allow,
        ],
        "socketpair": [*_require(0, families, errno.EAFNOSUPPORT), *allow],
        "setsockopt": [
            _load(1),
            (_JUMP_EQUAL, 1, 0, _SOL_SOCKET),
            *allow,
            *_forbid(2, (_SO_SNDBUF, _SO_RCVBUF), 0),
            *allow,
        ],
        "prlimit64": [*_unless(0, (0,), _require_null(2, errno.EPERM)), *allow],
        "setpriority": [
            *_require(0, (_PRIO_PROCESS, _PRIO_PGRP), errno.EPERM),
            *_require(1, (0,), errno.EPERM),
            *allow,
        ],
        "ioprio_set": [
            *_require(0, (_IOPRIO_WHO_PROCESS, _IOPRIO_WHO_PGRP), errno.EPERM),
            *_require(1, (0,), errno.EPERM),
            *allow,
        ],
        "sched_setscheduler": own_process,
        "sched_setparam": own_process,
        "sched_setattr": own_process,
        "personality": [*_require(0, (0, _ADDR_NO_RANDOMIZE, _PERSONALITY_QUERY), errno.EPERM), *allow],
    }


def _for_call(number: int | None, then: list[Instruction]) -> list[Instruction]:
    """Run ``then``, which must end in a return on every way, when the loaded number is this one."""
    if number is None:
        return []
    return [(_JUMP_EQUAL, 0, len(then), number), *then]


def _require(argument: int, values: tuple[int, ...], error: int) -> list[Instruction]:
    checks = [(_JUMP_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [_load(argument), *checks, _refuse(error)]


def _forbid(argument: int, values: tuple[int, ...], error: int) -> list[Instruction]:
    last = len(values) - 1
    checks = [
        (_JUMP_EQUAL, last - index, 1 if index == last else 0, value) for index, value in enumerate(values)
    ]
    return [_load(argument), *checks, _refuse(error)]


def _unless(argument: int, values: tuple[int, ...], then: list[Instruction]) -> list[Instruction]:
    """Run ``then`` only when the argument is none of ``values``."""
    count = len(values)
    checks = [(_JUMP_EQUAL, count - 1 - index + len(then), 0, value) for index, value in enumerate(values)]
    return [_load(argument), *checks, *then]


def _require_null(argument: int, error: int) -> list[Instruction]:
    # A pointer is 64 bits wide: the low half alone could be zero in a real address.
    high = (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument + 4)
    return [*_require(argument, (0,), error), high, (_JUMP_EQUAL, 1, 0, 0), _refuse(error)]


def _load(argument: int) -> Instruction:
    """Load the low half of an argument; both machines are little-endian."""
    return (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument)


def _refuse(error: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | error)

"""The system calls a converter may not make, as a seccomp filter for x86-64 and ARM64.

A list of what is denied, not of what is allowed: the libraries inside are many and change, and what they may open
is Landlock's business. Denied is whatever reaches other processes, the network, programs, or those properties of
files that Landlock does not govern (mode, owner, times, attributes). Denied calls fail with EPERM, so that a library
that tries one in vain goes on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

Instruction = tuple[int, int, int, int]

LOAD, AND, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
ALLOW = (RETURN, 0, 0, 0x7FFF0000)
DENY = (RETURN, 0, 0, 0x00050000 | errno.EPERM)
MISSING = (RETURN, 0, 0, 0x00050000 | errno.ENOSYS)
KILL = (RETURN, 0, 0, 0x80000000)
NUMBER_OFFSET, ARCHITECTURE_OFFSET, ARGUMENTS_OFFSET = 0, 4, 16

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
X32_BIT = 0x40000000
FIRST_UNKNOWN = 463  # system calls younger than this list are answered as by an older kernel
SET_MODE_FILTER, ALL_THREADS = 1, 1

CLONE_THREAD = 0x00010000
AF_UNIX, SOCK_STREAM, SOCKET_TYPE_MASK = 1, 1, 0xF
TERMINAL_AND_DESCRIPTOR_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C542A)
F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY = 8, 10, 15, 1024, 1026
SIGNALLING = (F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY)  # each can make the kernel send signals
F_SETFL = 4
SHARED_FLAGS = 0o20000 | 0o40000 | 0o200000 | 0o1000000  # O_ASYNC, O_DIRECT of either machine, O_NOATIME
F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW = 6, 7, 37, 38
MSG_OOB = 1
OPENED_TO_CHANGE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4

# name: (x86-64, ARM64); None where the architecture has no such call
DENIED: dict[str, tuple[int | None, int | None]] = {
    # network
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242), "bind": (49, 200),
    "listen": (50, 201),
    # programs and processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "ioprio_set": (251, 30), "setrlimit": (160, 164),
    # rights
    "capset": (126, 91), "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setgroups": (116, 159), "setresuid": (117, 147), "setresgid": (119, 149), "setfsuid": (122, 151),
    "setfsgid": (123, 152), "personality": (135, 92), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219),
    # memory that the limit on the address space does not count, and what other processes share
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "memfd_secret": (447, 447),
    "vmsplice": (278, 75), "splice": (275, 76), "tee": (276, 77), "io_setup": (206, 0), "io_submit": (209, 2),
    # descriptors to the daemon; what makes others wait for the disk or for a lock on the user's file
    "sendmsg": (46, 211), "sendmmsg": (307, 269), "recvmmsg": (299, 243), "sync": (162, 81), "syncfs": (306, 267),
    "fsync": (74, 82), "fdatasync": (75, 83), "sync_file_range": (277, 84), "flock": (73, 32),
    # what Landlock does not govern about files
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "truncate": (76, 45), "mknod": (133, None), "mknodat": (259, 33), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51), "pivot_root": (155, 41), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
    "unshare": (272, 97), "setns": (308, 268),
    # the kernel
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "syslog": (103, 116), "vhangup": (153, 58),
    "iopl": (172, None), "ioperm": (173, None), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
}  # fmt: skip
CONDITIONAL: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220), "clone3": (435, 435), "socketpair": (53, 199), "kill": (62, 129), "tkill": (200, 130),
    "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "prlimit64": (302, 261),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "setpriority": (141, 140), "ioctl": (16, 29), "fcntl": (72, 25), "prctl": (157, 167),
    "sendto": (44, 206), "recvfrom": (45, 207), "recvmsg": (47, 212),
}  # fmt: skip
# Only where Landlock does not govern files:
CHANGING_FILES: dict[str, tuple[int | None, int | None]] = {
    "creat": (85, None), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None),
    "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
}  # fmt: skip
OPENING: dict[str, tuple[int | None, int | None]] = {"open": (2, None), "openat": (257, 56), "openat2": (437, 437)}


def install(libc: ctypes.CDLL, *, files_governed: bool = True) -> bool:
    """Close the filter around all threads of this process; says whether the kernel did.

    Where nothing else governs files, the filter refuses whatever changes one. The process must have given up gaining
    privileges (PR_SET_NO_NEW_PRIVS).
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    return attach(libc, program(machine, os.getpid(), files_governed=files_governed))


def attach(libc: ctypes.CDLL, instructions: list[Instruction]) -> bool:
    """Hand a filter to the kernel, for all threads of this process; says whether it took it."""
    code = b"".join(struct.pack("@HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HxxxxxxP", len(instructions), ctypes.addressof(buffer))
    return bool(libc.syscall(SECCOMP_CALL[platform.machine()], SET_MODE_FILTER, ALL_THREADS, header) == 0)


def program(machine: str, pid: int, *, files_governed: bool = True) -> list[Instruction]:
    """The filter for a process of this pid."""
    column = list(ARCHITECTURES).index(machine)
    code = [_load(ARCHITECTURE_OFFSET), (EQUAL, 1, 0, ARCHITECTURES[machine]), KILL]
    code += [_load(NUMBER_OFFSET), (AT_LEAST, 0, 1, X32_BIT), DENY, (AT_LEAST, 0, 1, FIRST_UNKNOWN), MISSING]
    conditions = _conditions(pid)
    if not files_governed:
        conditions |= {name: [MISSING] if name == "openat2" else _no_change(name) for name in OPENING}
    for numbers in (DENIED if files_governed else DENIED | CHANGING_FILES).values():
        if (number := numbers[column]) is not None:
            code += _when(number, [DENY])
    for name, body in conditions.items():
        if (number := (CONDITIONAL | OPENING)[name][column]) is not None:
            code += _when(number, body)
    return [*code, ALLOW]


def _conditions(pid: int) -> dict[str, list[Instruction]]:
    own = _only(0, (pid,))
    own_or_caller = _only(0, (0, pid))
    return {
        "clone": [_argument(0), (ANY_BIT, 0, 1, CLONE_THREAD), ALLOW, DENY],
        "clone3": [MISSING],  # its flags are behind a pointer; glibc then falls back to clone
        "socketpair": [
            *(_argument(0), (EQUAL, 1, 0, AF_UNIX), DENY),
            # Not datagrams: those can be sent to any socket that has a name.
            *(_argument(1), (AND, 0, 0, SOCKET_TYPE_MASK), (EQUAL, 0, 1, SOCK_STREAM), ALLOW, DENY),
        ],
        **dict.fromkeys(("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"), own),
        "prlimit64": [
            *(_argument(2), (EQUAL, 1, 0, 0), DENY, _argument(2, high=True), (EQUAL, 1, 0, 0), DENY),
            *own_or_caller,
        ],
        **dict.fromkeys(("sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"), own_or_caller),
        "setpriority": [_argument(0), (EQUAL, 1, 0, 0), DENY, *_only(1, (0, pid))],
        "ioctl": _only(1, TERMINAL_AND_DESCRIPTOR_IOCTLS),
        "fcntl": [
            # The document's flags and locks are shared with the daemon, and with whoever writes it.
            *(_argument(1), (EQUAL, 0, 3, F_SETFL), _argument(2), (ANY_BIT, 0, 1, SHARED_FLAGS), DENY),
            *_all_but(1, (*SIGNALLING, F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW)),
        ],
        "sendto": _no_bit(3, MSG_OOB),
        "recvfrom": _no_bit(3, MSG_OOB),
        "recvmsg": _no_bit(2, MSG_OOB),
        "prctl": _all_but(0, (PR_SET_PDEATHSIG, PR_SET_DUMPABLE)),
    }


def _no_change(name: str) -> list[Instruction]:
    return _no_bit({"open": 1, "openat": 2}[name], OPENED_TO_CHANGE)


def _no_bit(index: int, bits: int) -> list[Instruction]:
    return [_argument(index), (ANY_BIT, 0, 1, bits), DENY, ALLOW]


def _load(offset: int) -> Instruction:
    return (LOAD, 0, 0, offset)


def _argument(index: int, *, high: bool = False) -> Instruction:
    return _load(ARGUMENTS_OFFSET + 8 * index + 4 * high)


def _when(number: int, body: list[Instruction]) -> list[Instruction]:
    """Run `body`, which must end in a verdict, if the system call has this number."""
    return [(EQUAL, 0, len(body), number), *body]


def _only(index: int, values: Iterable[int]) -> list[Instruction]:
    return [_argument(index), *(step for value in values for step in ((EQUAL, 0, 1, value), ALLOW)), DENY]


def _all_but(index: int, values: Iterable[int]) -> list[Instruction]:
    return [_argument(index), *(step for value in values for step in ((EQUAL, 0, 1, value), DENY)), ALLOW]

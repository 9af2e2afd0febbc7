"""Shuts a process up in itself: no network, no programs, no files but its libraries, bounded memory.

Landlock governs files and signals, seccomp (daemon.seccomp) the rest, resource limits the memory. All of it is
inherited by threads and cannot be undone. To be entered before there are other threads: Landlock binds the caller
and the threads it starts later, nobody else.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from daemon import seccomp

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SIGKILL = 9
OPEN_FILES_LIMIT = 256
LIKELIEST_VICTIM = 500  # of the kernel's out-of-memory killer: rather a converter than the daemon

CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_READ_SEARCH = 2

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION, PATH_BENEATH = 1, 1
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
FS_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 5: 16}  # so many rights from bit 0 on, from this version on
TCP_SINCE_ABI, ALL_TCP = 4, 0b11
SCOPES_SINCE_ABI, ALL_SCOPES = 6, 0b11

SYSTEM_LIBRARIES = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/usr/share/zoneinfo", "/dev/urandom"),
    *("/etc/fonts", "/usr/share/fonts", "/usr/share/fontconfig", "/usr/local/share/fonts", "/var/cache/fontconfig"),
)


@dataclass(frozen=True)
class SandboxFacts:
    """What the kernel granted. `landlock_abi` is 0 where files and signals are not governed."""

    landlock_abi: int
    seccomp: bool


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when the thread that started it ends; False if `parent` is gone already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def enter(read_paths: Iterable[str], memory_bytes: int) -> SandboxFacts:
    """Close the sandbox for good. Below `read_paths` and the system's libraries files can be read, none written.

    What the kernel does not offer is left out and shows in the facts; without Landlock files can be read but still not
    written, as long as there is seccomp. Raises OSError where a limit is refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _limit(memory_bytes)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    landlock_abi = _restrict_files(libc, [*SYSTEM_LIBRARIES, *read_paths])
    _drop_capabilities(libc)
    return SandboxFacts(landlock_abi, seccomp.install(libc, files_governed=landlock_abi > 0))


def landlock_version() -> int:
    """The version of Landlock that this kernel speaks, 0 for none."""
    version = ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)
    return max(0, int(version))


def _limit(memory_bytes: int) -> None:
    for limit, value in {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_FSIZE: 0,  # a memfd is a file too, and its pages are not in the address space
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES_LIMIT,
    }.items():
        _, most = resource.getrlimit(limit)
        allowed = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (allowed, allowed))
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(LIKELIEST_VICTIM))
    except OSError:
        pass  # no /proc here


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Root without its powers; reading its libraries in other users' folders is all that stays."""
    header = struct.pack("@Ii", CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data) == 0:
        _, permitted, *_ = struct.unpack("@6I", data)
        kept = permitted & 1 << CAP_DAC_READ_SEARCH
        libc.capset(header, struct.pack("@6I", kept, kept, 0, 0, 0, 0))


def _restrict_files(libc: ctypes.CDLL, read_paths: Iterable[str]) -> int:
    """Landlock; returns the version of it that is in force, 0 for none."""
    abi = landlock_version()
    if abi < 1:
        return 0
    rights = (1 << max(bits for since, bits in FS_RIGHTS_BY_ABI.items() if since <= abi)) - 1
    attributes = [rights]
    if abi >= TCP_SINCE_ABI:
        attributes.append(ALL_TCP)
    if abi >= SCOPES_SINCE_ABI:
        attributes.append(ALL_SCOPES)
    packed = struct.pack(f"@{len(attributes)}Q", *attributes)
    ruleset = libc.syscall(CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0)
    if ruleset < 0:
        return 0
    try:
        for path in read_paths:
            _allow(libc, ruleset, path, READ_FILE | READ_DIR)
        _allow(libc, ruleset, "/dev/null", READ_FILE | WRITE_FILE)
        return abi if libc.syscall(RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Grant `rights` beneath `path`, if it exists."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= ~READ_DIR
        libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)

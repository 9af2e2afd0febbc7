"""What a process can still do behind the sandbox, tried for real in one that entered it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, environment

ENTER = """
import ctypes, errno, json, os, resource, signal, socket, sys, threading, time, tempfile, subprocess
from daemon import sandbox
from daemon.converters.child import library_paths
libc = ctypes.CDLL(None, use_errno=True)
parent, folder = os.getppid(), sys.argv[1]
outside = os.open(os.path.join(folder, "secret"), os.O_RDONLY)
{before}
facts = sandbox.enter([os.path.join(folder, "readable"), *library_paths()], 1 << 30)
def attempt():
{attempt}
try:
    outcome = attempt()
except MemoryError:
    outcome = "MemoryError"
except OSError as error:
    outcome = errno.errorcode[error.errno]
print(json.dumps([facts.landlock_abi, facts.seccomp, outcome]))
"""
WITHOUT_LANDLOCK = """
from daemon import seccomp
code = [(seccomp.LOAD, 0, 0, 0), (seccomp.EQUAL, 0, 1, sandbox.CREATE_RULESET), seccomp.MISSING, seccomp.ALLOW]
libc.prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
seccomp.attach(libc, code)
"""
Attempt = Callable[[str], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "readable").mkdir()
    (tmp_path / "readable" / "library").write_text("library")
    return tmp_path


def attempt(code: str, folder: Path, before: str = "") -> tuple[int, bool, Any]:
    """What the kernel granted, and what came of the code: its value or the name of its error."""
    program = ENTER.format(before=before, attempt=textwrap.indent(code, "    "))
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    landlock_abi, seccomp, outcome = json.loads(done.stdout.splitlines()[-1])
    return landlock_abi, seccomp, outcome


FILES = {
    "read another file": 'open(os.path.join(folder, "secret"))',
    "list a folder": "os.listdir(folder)",
    "read the accounts": 'open("/etc/passwd")',
    "read the environment of the parent": 'open(f"/proc/{parent}/environ")',
    "read its own memory": 'open("/proc/self/mem")',
    "write into its libraries": 'open(os.path.join(folder, "readable", "library"), "r+")',
    "make a file": 'open(os.path.join(folder, "readable", "new"), "w")',
    "make a folder": 'os.mkdir(os.path.join(folder, "readable", "new"))',
    "make a link": 'os.symlink("/", os.path.join(folder, "readable", "new"))',
    "remove a file": 'os.unlink(os.path.join(folder, "readable", "library"))',
    "rename a file": 'os.rename(os.path.join(folder, "secret"), os.path.join(folder, "gone"))',
    "write to /tmp": 'open("/tmp/convertd-sandbox-test", "w")',
    "share memory by name": 'open("/dev/shm/convertd-sandbox-test", "w")',
}
CHANGES = list(FILES)[5:]
CALLS = {
    "a socket": "socket.socket()",
    "a socket of this host": "socket.socket(socket.AF_UNIX)",
    "datagrams": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "fork": "os._exit(0) if os.fork() == 0 else None",
    "a program": 'subprocess.run(["/bin/true"])',
    "a program instead of itself": 'os.execv("/bin/true", ["true"])',
    "a signal to the parent": "os.kill(parent, 0)",
    "a signal to everybody": "os.kill(-1, 0)",
    "a signal to the group": "os.kill(0, 0)",
    "more memory": "resource.prlimit(0, resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "the limits of others": "resource.prlimit(parent, resource.RLIMIT_CORE)",
    "permissions by name": 'os.chmod(os.path.join(folder, "secret"), 0o777)',
    "permissions of an open file": "os.fchmod(outside, 0o777)",
    "owner of an open file": "os.fchown(outside, os.getuid(), os.getgid())",
    "times of an open file": "os.utime(outside, (0, 0))",
    "attributes of an open file": 'os.setxattr(outside, "user.x", b"")',
    "cut a file": 'os.truncate(os.path.join(folder, "secret"), 0)',
    "another user": "os.setuid(os.getuid())",
    "priority of others": "os.setpriority(os.PRIO_PROCESS, parent, 19)",
    "processors of others": "os.sched_setaffinity(parent, {0})",
    "chroot": 'os.chroot("/")',
    "kernel's process handle": "os.pidfd_open(parent)",
    "a lock on the document": "__import__('fcntl').flock(outside, 2)",
    "another lock on the document": "__import__('fcntl').lockf(outside, 1 | 4)",
    "the daemon's flags of the document": "__import__('fcntl').fcntl(outside, 4, os.O_DIRECT)",
    "waiting for the disk": "os.fsync(outside)",
    "memory held in a pipe": "os.splice(outside, os.pipe()[1], 9)",
    "descriptors to the parent": "socket.send_fds(socket.socketpair()[0], [b'x'], [outside])",
    "urgent data": "socket.socketpair()[0].send(b'x', socket.MSG_OOB)",
    "signals by the back door": "__import__('fcntl').fcntl(outside, 8, parent)",
}


@pytest.mark.parametrize("name", FILES)
def test_no_file_but_the_libraries_can_be_touched(folder: Path, name: str) -> None:
    landlock_abi, _, outcome = attempt(f"return str({FILES[name]})", folder)
    if not landlock_abi:
        pytest.skip("the kernel has no Landlock")
    assert outcome in ("EACCES", "EPERM", "EXDEV")
    assert sorted(os.listdir(folder)) == ["readable", "secret"]
    assert os.listdir(folder / "readable") == ["library"]


@pytest.mark.parametrize("name", CHANGES)
def test_without_landlock_no_file_can_be_changed(folder: Path, name: str) -> None:
    landlock_abi, seccomp, outcome = attempt(f"return str({FILES[name]})", folder, WITHOUT_LANDLOCK)
    if not seccomp:
        pytest.skip("the kernel has no seccomp")
    assert (landlock_abi, outcome) == (0, "EPERM")
    assert sorted(os.listdir(folder)) == ["readable", "secret"]
    assert os.listdir(folder / "readable") == ["library"]


@pytest.mark.parametrize("name", CALLS)
def test_no_call_reaches_beyond_the_process(folder: Path, name: str) -> None:
    _, seccomp, outcome = attempt(f"return str({CALLS[name]})", folder)
    if not seccomp:
        pytest.skip("the kernel has no seccomp")
    assert outcome == "EPERM"
    assert (folder / "secret").read_text() == "secret"
    assert (folder / "secret").stat().st_mode & 0o777 != 0o777


ALLOWED: dict[str, tuple[str, Any]] = {
    "read a library": ('return open(os.path.join(folder, "readable", "library")).read()', "library"),
    "read what it was handed": ("return os.pread(outside, 9, 0).decode()", "secret"),
    "write to nowhere": ('return open("/dev/null", "w").write("x")', 1),
    "randomness": ('return len(open("/dev/urandom", "rb").read(4))', 4),
    "a thread": (
        "threads = [threading.Thread(target=time.time) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n"
        "return [thread.join(20) for thread in threads]",
        [None] * 4,
    ),
    "an event loop": ("import asyncio\nreturn asyncio.run(asyncio.sleep(0, 7))", 7),
    "a signal to itself": ("return os.kill(os.getpid(), 0)", None),
    "its own limits": ("return list(resource.getrlimit(resource.RLIMIT_AS))", [1 << 30] * 2),
    "an import": ("import html.parser\nreturn html.parser.__name__", "html.parser"),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_engines_need_works(folder: Path, name: str) -> None:
    code, expected = ALLOWED[name]
    assert attempt(code, folder)[2] == expected


def test_memory_is_bounded(folder: Path) -> None:
    assert attempt("return len(bytearray(1 << 30))", folder)[2] == "MemoryError"


def test_memory_outside_of_the_address_space_is_bounded(folder: Path) -> None:
    assert attempt('return os.write(os.memfd_create("x"), b"x")', folder)[2] == "EFBIG"


def test_capabilities_are_given_up(folder: Path) -> None:
    code = (
        "header, data = ctypes.create_string_buffer(8), (ctypes.c_uint32 * 6)()\n"
        "ctypes.memmove(header, (0x20080522).to_bytes(4, 'little') + bytes(4), 8)\n"
        "assert libc.capget(header, data) == 0\n"
        "return [data[0] & ~4, data[3]]"
    )
    assert attempt(code, folder)[2] == [0, 0]


def test_threads_started_later_are_behind_it_too(folder: Path) -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(1) as threads:\n"
        '    return threads.submit(open, os.path.join(folder, "secret")).result().name'
    )
    landlock_abi, _, outcome = attempt(code, folder)
    if not landlock_abi:
        pytest.skip("the kernel has no Landlock")
    assert outcome == "EACCES"

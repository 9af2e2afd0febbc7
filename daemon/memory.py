"""How this process gives memory back to the system."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_M_ARENA_MAX = -8  # malloc.h of glibc
ARENAS = 2
TUNABLES = "GLIBC_TUNABLES"  # ld.so(8)
NO_THREAD_CACHES = "glibc.malloc.tcache_count=0"
TUNED = "CONVERTD_MEMORY_TUNED"
"""In the environment of a process that has been started anew: the name that it had before, by which pgrep(1) and the
journal know it, and which it would lose, being started by the name of the interpreter. What glibc is told it may drop,
and hide that it did: where the interpreter has capabilities of its own."""
COMM = "/proc/self/comm"  # proc_pid_comm(5)


def without_thread_caches() -> None:
    """Start this program anew, in the same process, with a malloc that keeps nothing aside for single threads. Returns
    where that is done, or cannot be done. To be called before anything else.

    What a thread has freed stays in its cache, in the midst of pages that cannot be given back or used for anything
    larger. With the daemon's two dozen threads that was a sixth of its memory after 5,000 documents, and growing. What
    the caches are there for, not to wait for a lock, is of no use below Python's own lock. glibc hears of this only
    when a program starts.
    """
    if TUNED in os.environ:
        _be_known_as(os.environ[TUNED])
        return
    if not _has_glibc():
        return
    tunables = ":".join(filter(None, [os.environ.get(TUNABLES), NO_THREAD_CACHES]))
    environ = {**os.environ, TUNABLES: tunables, TUNED: _known_as()}
    with suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606 (it is this very program)


def share_arenas() -> None:
    """Have all threads take memory from the same few places. To be called before they are started.

    glibc gives each thread a place of its own otherwise, and what was free in it serves no other: the daemon's many
    threads, each of which holds one large document after another, kept a quarter more memory in the end. Does nothing
    with another C library.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)


def _known_as() -> str:
    try:
        with open(COMM) as file:
            return file.read().rstrip("\n")
    except (OSError, ValueError):
        return ""


def _be_known_as(name: str) -> None:
    if name:
        with suppress(OSError), open(COMM, "w") as file:
            file.write(name)


def _has_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False

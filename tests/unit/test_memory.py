"""Memory is shared among threads, and none of it kept aside for single ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from daemon.memory import NO_THREAD_CACHES, TUNABLES, TUNED
from tests.harness import ROOT, Daemon, environment

# Each thread holds a piece of its own for a while: with a place for each thread glibc reserves one of 64 MiB for it.
PROGRAM = """
import sys, threading
from daemon.memory import share_arenas
if sys.argv[1] == "shared":
    share_arenas()
held, go = threading.Barrier(17), threading.Barrier(17)
def hold():
    piece = bytearray(40_000)
    held.wait(); go.wait()
for _ in range(16):
    threading.Thread(target=hold).start()
held.wait()
heaps = sum(1 for line in open("/proc/self/maps") if line.split()[0].split("-")[0].endswith("000000"))
print(heaps)
go.wait()
"""


def places(how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=environment()).stdout)


def test_threads_take_memory_from_few_places() -> None:
    assert places("shared") + 3 < places("own")


# Each thread has had some blocks of many sizes and lives on. What is in its cache counts as in use.
KEEPING = """
import ctypes, os, sys, threading
from daemon.memory import without_thread_caches
if sys.argv[1] == "anew":
    print(os.getpid(), flush=True)
    without_thread_caches()
print(os.getpid())
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena o s h hb u fs used free keep".split()]
look = ctypes.CDLL(None).mallinfo2
look.restype = Info
done, go = threading.Barrier(17), threading.Barrier(17)
def have():
    for size in range(600, 1000, 16):
        [bytes(size) for _ in range(7)]
    done.wait(); go.wait()
before = look().used
for _ in range(16):
    threading.Thread(target=have).start()
done.wait()
print(look().used - before)
print(os.environ["GLIBC_TUNABLES"])
go.wait()
"""
OF_THE_USER = "glibc.malloc.perturb=0"


def kept(how: str, **env: str) -> list[str]:
    command = [sys.executable, "-c", KEEPING, how]
    env = environment({TUNABLES: OF_THE_USER, **env})
    return subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT, env=env).stdout.splitlines()


def test_what_a_thread_has_freed_is_not_kept_for_it() -> None:
    *_, kept_bytes, _ = kept("as it is")
    pid, also, again, kept_anew_bytes, tunables = kept("anew")
    assert pid == also == again  # the service manager knows it by this
    assert int(kept_anew_bytes) < int(kept_bytes) / 4
    assert tunables == f"{OF_THE_USER}:{NO_THREAD_CACHES}"


def test_a_process_is_begun_anew_once() -> None:
    """Also where what glibc was told is dropped on the way."""
    *_, tunables = kept("anew", **{TUNED: "1"})
    assert tunables == OF_THE_USER


NAME = "convertd"  # what the kernel calls a process that a script of this name has started
RENAMED = f"""
import runpy, sys
open("/proc/self/comm", "w").write("{NAME}")
sys.argv = sys.argv[3:]
sys.orig_argv = sys.orig_argv[3:]
runpy.run_module("daemon", run_name="__main__")
"""


def _name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_the_daemon_is_begun_anew(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, prefix=(sys.executable, "-c", RENAMED)).start()
    assert daemon.process is not None
    assert _name_of(daemon.process.pid) == NAME, "by which pgrep and the journal know it"
    told = Path(f"/proc/{daemon.process.pid}/environ").read_bytes()
    assert os.fsencode(f"{TUNABLES}={NO_THREAD_CACHES}") in told
    daemon.stop()

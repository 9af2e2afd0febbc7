"""Memory is shared among threads."""

from __future__ import annotations

import subprocess
import sys

from tests.harness import ROOT, environment

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

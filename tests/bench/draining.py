"""A backlog through the real daemon, watched from outside."""

from __future__ import annotations

import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.cli.common import Place
from daemon.cli.gathering import gather
from daemon.db import Readers
from daemon.statedir import StateDir
from tests.bench.measure import private_bytes
from tests.harness import Daemon, children_of, until

LOOK_SECONDS, NEAR_SECONDS = 0.1, 0.005
"""How often the job table is looked at, which takes a tenth of a millisecond: rarely, and often towards the end, since
the last of these looks tells how long the drain took, too long by no more than their distance."""
NEAR_LOOKS = 4
"""Towards the end is where the rest would take so many of the rare looks at the speed so far."""
STATUS_SECONDS = 0.5
DRAIN_SECONDS = 1800.0
ENDINGS = (".md", ".error.json")
"""A document has ended once a file of its name ends in one of these."""
OFF, AUTO = "off", "auto"
"""Modes of OCR: what a document of text holds of pictures would take most of the time, and measures OCR."""
CONFIG = """
state_dir = "state"
workers = {workers}
ocr.mode = "{ocr}"
[[watch]]
name = "documents"
source = "inbox"
sink = "outbox"
"""


@dataclass(frozen=True)
class Memory:
    """What daemon and children hold for themselves when so many documents have ended."""

    documents: int
    daemon_bytes: int
    children_bytes: int


@dataclass
class Drained:
    """How a drain went. `busy` is how often the job table was busy for somebody, the commands included."""

    seconds: float = 0.0
    busy: int = 0
    memory: list[Memory] = field(default_factory=list)

    def memory_between(self, first: int, last: int, what: Callable[[Memory], int]) -> float:
        """The median while documents `first` to `last` came to their end."""
        values = [what(memory) for memory in self.memory if first <= memory.documents <= last]
        assert values, f"nobody looked between documents {first} and {last}"
        return statistics.median(values)

    def most_memory(self, first: int, what: Callable[[Memory], int]) -> float:
        """The most after the first so many documents."""
        return max(what(memory) for memory in self.memory if memory.documents >= first)


def drained(
    documents: Sequence[Path], folder: Path, workers: int = 0, ocr: str = OFF, memory_seconds: float = STATUS_SECONDS
) -> Drained:
    """From the moment that all documents are in the inbox of a warm daemon until each has its result and the job table
    says so: readers see a commit once it is on the disk.

    Beside it somebody asks for the status twice a second; memory is looked at every `memory_seconds`. What was written
    before is on the disk when the clock starts: else the first sync would wait for it.
    """
    folder.mkdir(exist_ok=True)
    daemon = Daemon(folder, CONFIG.format(workers=workers, ocr=ocr))
    try:
        daemon.start()
        daemon.drop("warm-up.html", b"<h1>warm</h1>")
        daemon.outcome("warm-up.html")
        staged = folder / "staged"
        staged.mkdir()
        for path in documents:
            os.link(path, staged / path.name)
        os.sync()
        table = Readers(StateDir(str(daemon.state)).database)
        until(lambda: ended_jobs(table) == 1, "the job of the warm-up has ended")
        result = _watched(
            daemon, table, len(documents), lambda: os.rename(staged, daemon.inbox / "batch"), memory_seconds
        )
        assert outcomes(daemon) == len(documents), f"{outcomes(daemon)} results of {len(documents)} documents"
        daemon.stop()
        result.busy += len(re.findall(r"SQLITE_BUSY|BusyError|database is locked", daemon.log.read_text()))
        return result
    finally:
        daemon.close()


def _watched(daemon: Daemon, table: Readers, count: int, begin: Callable[[], None], memory_seconds: float) -> Drained:
    assert daemon.process is not None
    result, place = Drained(), Place(None, StateDir(str(daemon.state)))
    pause = threading.Event()
    before = ended_jobs(table)
    next_status = next_memory = 0.0
    started = time.perf_counter()
    begin()
    while (ended := ended_jobs(table) - before) < count:
        took = time.perf_counter() - started
        assert daemon.process.poll() is None, f"the daemon has ended:\n{daemon.log.read_text()[-2000:]}"
        assert took < DRAIN_SECONDS, f"{ended} of {count} documents have ended"
        near = is_near(ended, count, took)
        if took >= next_memory and not near:
            result.memory.append(_memory(daemon.process.pid, ended))
            next_memory = took + memory_seconds
        if took >= next_status and not near:
            result.busy += _is_busy(place)
            next_status = took + STATUS_SECONDS
        pause.wait(NEAR_SECONDS if near else LOOK_SECONDS)
    result.seconds = time.perf_counter() - started
    result.memory.append(_memory(daemon.process.pid, count))
    return result


def ended_jobs(table: Readers) -> int:
    """How many jobs have ended, by the counters of the job table, which change with the jobs."""
    rows = table.rows("SELECT coalesce(sum(jobs), 0) FROM counts WHERE state IN ('completed', 'failed')")
    return int(rows[0][0])


def is_near(ended: int, count: int, seconds: float) -> bool:
    """Whether a drain of which so many documents have ended in so many seconds might soon be over."""
    return seconds * (count - ended) < NEAR_LOOKS * LOOK_SECONDS * ended


def outcomes(daemon: Daemon) -> int:
    """How many documents of the batch have ended, by their files: one directory listing, no help of the daemon."""
    batch = daemon.outbox / "batch"
    names = os.listdir(batch) if batch.exists() else []
    return sum(name.endswith(ENDINGS) for name in names)


def seconds_to_last_result(daemon: Daemon) -> float:
    """From the moment that the batch got its name in the inbox to that at which its last result got its own, both as
    the file system has noted them: who looks ten times a second would add a tenth of one to drains of two or three. The
    sync of its folder and the commit of its job, some milliseconds, come after it: this is for comparing drains with
    each other."""
    begun = os.stat(daemon.inbox / "batch").st_ctime_ns
    with os.scandir(daemon.outbox / "batch") as results:
        last = max(result.stat().st_ctime_ns for result in results if result.name.endswith(ENDINGS))
    return (last - begun) / 1e9


def _memory(pid: int, documents: int) -> Memory:
    return Memory(documents, private_bytes(pid), sum(map(_private_if_there, children_of(pid))))


def _private_if_there(pid: int) -> int:
    try:
        return private_bytes(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it was replaced


def _is_busy(place: Place) -> bool:
    """Whether `convertd status` is told that the job table is busy."""
    try:
        gather(place)
    except Exception as error:
        if "busy" not in repr(error).lower() and "locked" not in repr(error).lower():
            raise
        return True
    return False

"""A backlog through the real daemon, watched from outside."""

from __future__ import annotations

import itertools
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
from daemon.statedir import StateDir
from tests.bench.measure import private_bytes
from tests.harness import Daemon, children_of

LOOK_SECONDS = 0.1
"""Rarely: listing a large folder takes time from the daemon. How long a drain took is not told by these looks."""
LOOKS_A_STATUS = 5
"""Memory and status are looked at once in so many looks at the outputs."""
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


def drained(documents: Sequence[Path], folder: Path, workers: int = 0, ocr: str = OFF) -> Drained:
    """From the moment that all documents are in the inbox of a warm daemon to the last one's end.

    Beside it somebody asks for the status twice a second. What was written before is on the disk when the clock
    starts: else the first sync would wait for it.
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
        result = _watched(daemon, len(documents), lambda: os.rename(staged, daemon.inbox / "batch"))
        daemon.stop()
        result.busy += len(re.findall(r"SQLITE_BUSY|BusyError|database is locked", daemon.log.read_text()))
        return result
    finally:
        daemon.close()


def _watched(daemon: Daemon, count: int, begin: Callable[[], None]) -> Drained:
    assert daemon.process is not None
    result, place = Drained(), Place(None, StateDir(str(daemon.state)))
    pause = threading.Event()
    started = time.perf_counter()
    begin()
    looks = itertools.count()
    while (ended := outcomes(daemon)) < count:
        assert daemon.process.poll() is None, f"the daemon has ended:\n{daemon.log.read_text()[-2000:]}"
        assert time.perf_counter() - started < DRAIN_SECONDS, f"{ended} of {count} documents have ended"
        if next(looks) % LOOKS_A_STATUS == 0:
            result.memory.append(_memory(daemon.process.pid, ended))
            result.busy += _is_busy(place)
        pause.wait(LOOK_SECONDS)
    result.seconds = seconds_to_last_result(daemon)
    result.memory.append(_memory(daemon.process.pid, count))
    return result


def outcomes(daemon: Daemon) -> int:
    """How many documents of the batch have ended, by their files: one directory listing, no help of the daemon."""
    batch = daemon.outbox / "batch"
    names = os.listdir(batch) if batch.exists() else []
    return sum(name.endswith(ENDINGS) for name in names)


def seconds_to_last_result(daemon: Daemon) -> float:
    """From the moment that the batch got its name in the inbox to that at which its last result got its own, both as
    the file system has noted them: who looks ten times a second would add a tenth of one to drains of two or three."""
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

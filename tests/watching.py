"""A ledger and a watcher in memory, and a source that discovers in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.model import Candidate, Job
from daemon.sources.base import Source
from tests.harness import until


class Everything:
    """A filter that takes every name that is not hidden."""

    def takes(self, source: bytes) -> bool:
        return self.why(source) is None

    def why(self, source: bytes) -> str | None:
        return "hidden names are never taken" if source.rsplit(b"/", 1)[-1].startswith(b".") else None


class Clock:
    """The real clocks, put forward at will."""

    def __init__(self, ahead_seconds: float = 0.0) -> None:
        self.ahead_seconds = ahead_seconds

    def time(self) -> float:
        return time.time() + self.ahead_seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_seconds


class MemoryLedger:
    """Keeps the last version of each path, and every job in the order in which it came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, str] = {}
        self.jobs: list[Candidate] = []

    def unknown(self, candidates: list[Candidate]) -> list[Candidate]:
        with self._lock:
            return [found for found in candidates if self._known.get(found.source) != found.version]

    def enqueue(self, candidates: list[Candidate]) -> int:
        with self._lock:
            new = [found for found in candidates if self._known.get(found.source) != found.version]
            self._known.update((found.source, found.version) for found in new)
            self.jobs += new
            return len(new)

    def unfinished(self, sources: list[bytes]) -> set[bytes]:
        """Its jobs end at once."""
        return set()

    def sources(self) -> list[bytes]:
        with self._lock:
            return sorted(found.source for found in self.jobs)

    def sizes(self, source: bytes) -> list[int]:
        with self._lock:
            return [found.size_bytes for found in self.jobs if found.source == source]


class MemoryWatcher:
    """Remembers what a source says."""

    def __init__(self) -> None:
        self.beats = 0
        self.illnesses: list[Exception] = []
        self.recoveries = 0
        self.notes: list[str | None] = []
        self.left: int | None = None
        self.lefts: list[int] = []

    def beat(self) -> None:
        self.beats += 1

    def sick(self, error: Exception) -> None:
        self.illnesses.append(error)

    def well(self) -> None:
        self.recoveries += 1

    def note(self, text: str | None) -> None:
        self.notes.append(text)

    def drained(self, left: int) -> None:
        self.left = left
        self.lefts.append(left)

    def room(self) -> int:
        return 10

    def paused(self) -> bool:
        return False

    def running(self) -> set[bytes]:
        return set()


class Watched:
    """A source at work."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.ledger = MemoryLedger()
        self.watcher = MemoryWatcher()

    def drained(self) -> None:
        """Wait until everything that was there has been looked at and nothing is left."""
        until(lambda: self.watcher.left == 0, "the source is drained")

    def queued(self, *names: str | bytes) -> None:
        """Wait until exactly these have been queued, each once."""
        wanted = sorted(name.encode() if isinstance(name, str) else name for name in names)
        until(lambda: len(self.ledger.sources()) >= len(wanted), f"{len(wanted)} files are queued")
        assert self.ledger.sources() == wanted


@contextmanager
def watched(source: Source, *, first_scan: bool = True) -> Iterator[Watched]:
    """Run the source; it has done its first scan, unless told otherwise. Fails if its thread dies of an error."""
    state, stop, errors = Watched(source), threading.Event(), []

    def run() -> None:
        try:
            source.run(state.ledger, state.watcher, stop.is_set)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        if first_scan:
            until(lambda: state.watcher.left is not None or errors, "the first scan is through")
        yield state
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert not errors, errors


def job_for(found: Candidate, job_id: int = 1, location: bytes | None = None) -> Job:
    """The job that a candidate becomes."""
    return Job(
        id=job_id,
        watch="inbox",
        source=found.source,
        version=found.version,
        size_bytes=found.size_bytes,
        priority=5,
        attempts=0,
        interruptions=0,
        discovered_at=0.0,
        location=location,
    )


def pdf(body: str = "hello") -> bytes:
    """Something that looks like a whole PDF from the outside."""
    return b"%PDF-1.4\n" + body.encode() * 500 + b"\nstartxref\n0\n%%EOF\n"


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too, with their content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

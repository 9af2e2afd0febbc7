"""Files that are not ready yet, and when to look at each again."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable

from daemon.sources.base import Watcher
from daemon.sources.readiness import Unready


class Waiting:
    """Files with their last judgement, ordered by when they are due. Used by one thread."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._files: dict[bytes, tuple[float, Unready]] = {}
        self._due: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, source: bytes) -> bool:
        return source in self._files

    def put(self, source: bytes, unready: Unready) -> None:
        """Look at it again when the judgement says."""
        self._schedule(source, self._monotonic() + unready.seconds, unready)

    def hurry(self, source: bytes) -> None:
        """Something has happened to it: look at it now."""
        self._schedule(source, self._monotonic(), self._files[source][1])

    def take_due(self, limit: int) -> list[tuple[bytes, Unready]]:
        """Remove and return what is due."""
        now = self._monotonic()
        taken: list[tuple[bytes, Unready]] = []
        while self._due and self._due[0][0] <= now and len(taken) < limit:
            due, source = heapq.heappop(self._due)
            if source in self._files and self._files[source][0] == due:
                taken.append((source, self._files.pop(source)[1]))
        return taken

    def due_in_seconds(self) -> float:
        """When the next one is due; infinite if there is none."""
        return self._due[0][0] - self._monotonic() if self._due else float("inf")

    def _schedule(self, source: bytes, due: float, unready: Unready) -> None:
        self._files[source] = (due, unready)
        heapq.heappush(self._due, (due, source))


class Rechecks:
    """Paths that others want looked at again, and what the watch is told to be left. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: set[bytes] = set()
        self._wanted = threading.Event()
        self._watcher: Watcher | None = None
        self._waiting = 0
        self._told: int | None = None

    def add(self, source: bytes) -> None:
        """Want this path looked at; the watch knows of it at once, so that it does not count as drained."""
        with self._lock:
            self._paths.add(source)
            self._wanted.set()
            if self._watcher is not None:
                self._tell(self._watcher)

    def take(self) -> set[bytes]:
        """Remove and return them all; they count as left until the next `report`."""
        with self._lock:
            paths, self._paths = self._paths, set()
            self._wanted.clear()
            return paths

    def wanted(self) -> bool:
        """Whether there are any."""
        return self._wanted.is_set()

    def wait(self, seconds: float) -> None:
        """Until somebody wants something, at most so long."""
        self._wanted.wait(seconds)

    def report(self, watcher: Watcher, waiting: int) -> None:
        """Tell the watch how many files are left, if that has changed."""
        with self._lock:
            if watcher is not self._watcher:
                self._watcher, self._told = watcher, None
            self._waiting = waiting
            self._tell(watcher)

    def _tell(self, watcher: Watcher) -> None:
        left = self._waiting + len(self._paths)
        if left != self._told:
            self._told = left
            watcher.drained(left)

"""What has come to an end since the daemon started."""

from __future__ import annotations

import threading
from collections.abc import Callable

from daemon.model import State

RATE_WINDOW_SECONDS = 60.0


class Tally:
    """Counts what has ended since the start. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._started = monotonic()
        self._recent: list[float] = []
        self.ended = 0
        self.changed = 0
        self.completed = 0
        self.failed = 0

    def add(self, state: State) -> None:
        """A job has ended."""
        now = self._monotonic()
        with self._lock:
            self.ended += 1
            self.changed += state is State.SUPERSEDED
            self.completed += state is State.COMPLETED
            self.failed += state is State.FAILED
            self._recent.append(now)
            if self._recent[0] < now - 2 * RATE_WINDOW_SECONDS:
                self._recent = [ended for ended in self._recent if ended >= now - RATE_WINDOW_SECONDS]

    def note_change(self) -> None:
        """A document was found changed outside of a job."""
        with self._lock:
            self.changed += 1

    def per_second(self) -> float:
        """Jobs ended per second over the last minute."""
        now = self._monotonic()
        window = min(RATE_WINDOW_SECONDS, max(now - self._started, 1.0))
        with self._lock:
            return sum(ended >= now - window for ended in self._recent) / window

    @property
    def uptime_seconds(self) -> float:
        return self._monotonic() - self._started

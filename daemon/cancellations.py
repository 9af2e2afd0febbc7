"""Which running jobs an operator has called off."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancellations:
    """All methods may be called from any thread. `interrupt` ends the conversion of a job, if there is one just now."""

    def __init__(self, interrupt: Callable[[int], None]) -> None:
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._wanted: set[int] = set()
        self._delivering: set[int] = set()

    def add(self, job_id: int) -> bool:
        """Call a running job off; False where its result is already on its way."""
        with self._lock:
            if job_id in self._delivering:
                return False
            self._wanted.add(job_id)
        self._interrupt(job_id)
        return True

    def wanted(self, job_id: int) -> bool:
        """Whether the job has been called off."""
        return job_id in self._wanted

    def begin_delivery(self, job_id: int) -> bool:
        """From here on the job cannot be called off; False where it has been."""
        with self._lock:
            if job_id in self._wanted:
                return False
            self._delivering.add(job_id)
            return True

    def forget(self, job_id: int) -> None:
        """The job is no longer running."""
        with self._lock:
            self._wanted.discard(job_id)
            self._delivering.discard(job_id)

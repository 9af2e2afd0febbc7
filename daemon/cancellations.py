"""Which running jobs an operator has called off."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancellations:
    """All methods may be called from any thread. `interrupt` ends the conversion of a job, if there is one just now.

    A job may be called off until its worker closes it; the worker then either heeds that or carries the job to its
    end, so nobody is told that a job is called off whose result appears.
    """

    def __init__(self, interrupt: Callable[[int], None]) -> None:
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._wanted: set[int] = set()
        self._closed: set[int] = set()

    def add(self, job_id: int) -> bool:
        """Call a running job off; False where it is too late, since its end is settled."""
        with self._lock:
            if job_id in self._closed:
                return False
            self._wanted.add(job_id)
        self._interrupt(job_id)
        return True

    def withdraw(self, job_id: int) -> bool:
        """The job turned out not to be running; False where its worker has heeded the call before."""
        with self._lock:
            heeded = job_id not in self._wanted
            self._wanted.discard(job_id)
            return not heeded

    def wanted(self, job_id: int) -> bool:
        """Whether the job has been called off."""
        return job_id in self._wanted

    def close(self, job_id: int) -> bool:
        """From here on, until it is forgotten, the job cannot be called off; False where it has been."""
        with self._lock:
            self._closed.add(job_id)
            called_off = job_id in self._wanted
            self._wanted.discard(job_id)
            return not called_off

    def forget(self, job_id: int) -> None:
        """The job is no longer running, and that is recorded."""
        with self._lock:
            self._wanted.discard(job_id)
            self._closed.discard(job_id)

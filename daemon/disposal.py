"""What becomes of a source after its job: the janitor deletes or moves it, once everything else is durable.

The disposal is due from the very commit that ended the job, so one that a crash interrupted is taken up at the next
start. `Source.dispose` is idempotent; this module only decides when to call it and records the end.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count

from daemon.errors import ConvertdError, EnvironmentProblem, NotYet, SourceChanged, SourceVanished, TransientError
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.model import Disposal, Job, display
from daemon.sources.base import Documents

AGAIN_SECONDS = (1.0, 5.0, 15.0, 60.0)


class Janitor:
    """Disposes of sources in one thread of its own (`run`); `add` and `idle` may be called from any thread.

    An error never loses the source: the disposal stays due and is tried again, for ever. `note` shows an operator
    what a watch's disposals meet; None when one has succeeded again. `kept` is called for a source that is left
    where it is because it changed. `submitted` holds the documents that come from no source.
    """

    def __init__(
        self,
        sources: Mapping[str, Documents],
        jobs: JobTable,
        log: Log,
        note: Callable[[str, str | None], None] = lambda watch, text: None,
        kept: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        submitted: Documents | None = None,
    ) -> None:
        self._submitted = submitted
        self._note = note
        self._kept = kept
        self._sources = sources
        self._jobs = jobs
        self._log = log
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._acting = threading.Lock()
        self._due: list[tuple[float, int, Job, Disposal, int]] = []
        self._order = count()
        self._busy = False
        self._stopped = False

    def add(self, job: Job, disposal: Disposal) -> None:
        """The job has ended and its disposal is due in the job table."""
        self._schedule(job, disposal, 0.0, 0)

    def stop(self) -> None:
        """Make `run` return after the disposal under way; what is left is taken up at the next start."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While this lasts nothing is disposed of: for who calls disposals off in the job table."""
        with self._acting:
            yield

    def backlog(self) -> int:
        """How many disposals are due or under way."""
        with self._changed:
            return len(self._due) + self._busy

    def run(self) -> None:
        """Dispose until stopped. Raises FatalError where the job table is lost."""
        while (entry := self._next()) is not None:
            try:
                with self._acting:
                    self._dispose(*entry)
            finally:
                with self._changed:
                    self._busy = False

    def _schedule(self, job: Job, disposal: Disposal, seconds: float, failures: int) -> None:
        with self._changed:
            entry = (self._monotonic() + seconds, next(self._order), job, disposal, failures)
            heapq.heappush(self._due, entry)
            self._changed.notify_all()

    def _next(self) -> tuple[Job, Disposal, int] | None:
        with self._changed:
            while not self._stopped:
                wait = self._due[0][0] - self._monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    _, _, job, disposal, failures = heapq.heappop(self._due)
                    self._busy = True
                    return job, disposal, failures
                self._changed.wait(wait)
            return None

    def _dispose(self, job: Job, disposal: Disposal, failures: int) -> None:
        try:
            if not self._jobs.disposal_is_due(job):
                return  # a retry has called it off
            if not job.submitted and not self._jobs.is_current(job):
                raise SourceChanged("a newer version of the document is queued")
            location = self._documents(job).dispose(job, disposal)
            self._jobs.disposed(job, location)
        except NotYet as early:
            self._schedule(job, disposal, early.seconds, failures)
        except SourceChanged:
            self._jobs.keep_source(job)
            self._kept()
            self._documents(job).recheck(job.source)
            self._say(job, "source kept: it has changed since")
        except SourceVanished:
            self._jobs.disposed(job, None)
            self._say(job, "source already gone")
        except (TransientError, EnvironmentProblem) as error:
            self._again(job, disposal, failures, error)
        else:
            if failures:
                self._note(job.watch, None)
            self._say(job, "source moved" if location else "source deleted")

    def _documents(self, job: Job) -> Documents:
        if not job.submitted:
            return self._sources[job.watch]
        assert self._submitted is not None
        return self._submitted

    def _again(self, job: Job, disposal: Disposal, failures: int, error: ConvertdError) -> None:
        seconds = AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS) - 1)]
        self._note(job.watch, f"{display(job.source)}: {error.message}")
        if failures in (0, len(AGAIN_SECONDS)):
            self._log.error(
                "source not disposed of",
                job=job.id,
                watch=job.watch,
                source=display(job.source),
                error=error.message,
                hint=error.hint,
                again_in_seconds=seconds,
            )
        self._schedule(job, disposal, seconds, failures + 1)

    def _say(self, job: Job, event: str) -> None:
        self._log.debug(event, job=job.id, watch=job.watch, source=display(job.source))

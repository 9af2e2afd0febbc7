"""What becomes of a source after its job: the janitor deletes or moves it, once everything else is durable.

The disposal is due from the very commit that ended the job, so one that a crash interrupted is taken up at the next
start. `Source.dispose` is idempotent; this module only decides when to call it and records the end. Each watch's are
carried out one at a time, and a watch whose server does not answer holds up no other.
"""

from __future__ import annotations

import heapq
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import count

from daemon.errors import ConvertdError, FatalError, NotYet, SourceChanged, SourceVanished, Unanswered
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.model import Disposal, Job, display
from daemon.sources.base import Documents

AGAIN_SECONDS = (1.0, 5.0, 15.0, 60.0)
HANDS = 4
HELD_SECONDS = 5.0


Entry = tuple[float, int, Job, Disposal, int]
"""When it is due, the order, what is to be done, and how often it failed."""


class Janitor:
    """Disposes of sources in threads of its own, each of which calls `run`; the rest may be called from any thread.

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
        self._due: dict[str, list[Entry]] = {}  # a heap for each watch
        self._order = count()
        self._acting: dict[str, int] = {}  # the watches that somebody is at, and with which job
        self._held: set[int] = set()
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
    def held(self, job_ids: Collection[int]) -> Iterator[None]:
        """While this lasts nothing is disposed of for these jobs: for who calls disposals off in the job table.

        Raises Unanswered where one is being disposed of and does not come to an end.
        """
        with self._changed:
            held = set(job_ids) - self._held
            self._held |= held
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: held.isdisjoint(self._acting.values()), HELD_SECONDS):
                    raise Unanswered("a source is just being disposed of", "Try again in a minute.")
            yield
        finally:
            with self._changed:
                self._held -= held
                self._changed.notify_all()

    def backlog(self) -> int:
        """How many disposals are due or under way."""
        with self._changed:
            return sum(map(len, self._due.values())) + len(self._acting)

    def run(self) -> None:
        """Dispose until stopped. Raises FatalError where the job table is lost."""
        while (entry := self._next()) is not None:
            try:
                self._dispose(*entry)
            finally:
                with self._changed:
                    del self._acting[entry[0].watch]
                    self._changed.notify_all()

    def _schedule(self, job: Job, disposal: Disposal, seconds: float, failures: int) -> None:
        with self._changed:
            entry = (self._monotonic() + seconds, next(self._order), job, disposal, failures)
            heapq.heappush(self._due.setdefault(job.watch, []), entry)
            self._changed.notify_all()

    def _next(self) -> tuple[Job, Disposal, int] | None:
        with self._changed:
            while not self._stopped:
                entry = self._take_due()
                if entry is not None:
                    return entry
                self._changed.wait(self._seconds_to_wait())
            return None

    def _take_due(self) -> tuple[Job, Disposal, int] | None:
        """The first that is due, of a watch that nobody is at."""
        tops = [heap[0] for heap in self._due.values() if heap and self._is_free(heap[0])]
        first = min(tops, default=None, key=lambda entry: entry[:2])
        if first is None or first[0] > self._monotonic():
            return None
        _, _, job, disposal, failures = heapq.heappop(self._due[first[2].watch])
        self._acting[job.watch] = job.id
        return job, disposal, failures

    def _is_free(self, entry: Entry) -> bool:
        return entry[2].watch not in self._acting and entry[2].id not in self._held

    def _seconds_to_wait(self) -> float | None:
        """Until the next one is due; what is not free is announced when it becomes so."""
        due = [heap[0][0] for heap in self._due.values() if heap and self._is_free(heap[0])]
        return min(due) - self._monotonic() if due else None

    def _dispose(self, job: Job, disposal: Disposal, failures: int) -> None:
        try:
            end = self._come_to_an_end(job, disposal)
        except NotYet as early:
            self._schedule(job, disposal, early.seconds, failures)
        except FatalError:
            raise
        except ConvertdError as error:
            self._again(job, disposal, failures, error)
        except Exception as error:  # one document must not end the daemon, now and at each of its starts
            self._log.error("internal error", job=job.id, watch=job.watch, exception=traceback.format_exc())
            self._again(job, disposal, failures, ConvertdError(f"convertd failed: {error!r}"))
        else:
            if failures:
                self._note(job.watch, None)
            if end:
                self._say(job, end)

    def _come_to_an_end(self, job: Job, disposal: Disposal) -> str:
        """Dispose of the source, or find that it is to stay or gone already, and record that: whatever of it fails is
        done again. Returns what became of it; nothing where a retry has called it off."""
        if not self._jobs.disposals.is_due(job):
            return ""
        try:
            if not job.submitted and not self._jobs.is_current(job):
                raise SourceChanged("a newer version of the document is queued")
            location = self._documents(job).dispose(job, disposal)
        except SourceChanged:
            self._jobs.disposals.keep_source(job)
            self._kept()
            self._documents(job).recheck(job.source)
            return "source kept: it has changed since"
        except SourceVanished:
            self._jobs.disposals.done(job, None)
            return "source already gone"
        self._jobs.disposals.done(job, location)
        return "source moved" if location else "source deleted"

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

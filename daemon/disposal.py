"""What becomes of a source after its job: the janitor deletes or moves it, once everything else is durable.

The disposal is due from the very commit that ended the job, so one that a crash interrupted is taken up at the next
start. `Source.dispose` is idempotent; this module only decides when to call it and records the end. Each watch's are
carried out one at a time, and a watch whose server does not answer holds up no other.

What is remembered here is only whose disposal is due. Whether it still is, and after which end of the job, is read from
its row at the moment of acting, and what that means is asked then, too: a retry may have given the job another end, a
reload the watch another configuration.
"""

from __future__ import annotations

import heapq
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count

from daemon.errors import ConvertdError, FatalError, NotYet, SourceChanged, SourceVanished
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.model import Disposal, Job, display
from daemon.sources.base import Documents

AGAIN_SECONDS = (1.0, 5.0, 15.0, 60.0)
HANDS = 4
HELD_SECONDS = 5.0

Entry = tuple[float, int, Job]
"""When it is due, the order, and whose it is."""

Errand = Callable[[Job, str], tuple[Documents, Disposal]]
"""Where the document of a job is that has ended in 'success' or 'failure', and what is to become of it, as the watch is
configured now."""


class Janitor:
    """Disposes of sources in threads of its own, each of which calls `run`; the rest may be called from any thread.

    An error never loses the source: the disposal stays due and is tried again, for ever. `note` shows an operator
    what a watch's disposals meet; None when one has succeeded again. `kept` is called for a source that is left
    where it is because it changed, or is to be kept now.
    """

    def __init__(
        self,
        errand: Errand,
        jobs: JobTable,
        log: Log,
        note: Callable[[str, str | None], None] = lambda watch, text: None,
        kept: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._errand = errand
        self._note = note
        self._kept = kept
        self._jobs = jobs
        self._log = log
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._due: dict[str, list[Entry]] = {}  # a heap for each watch
        self._valid: dict[int, int] = {}  # of each job that waits the order of its entry; others of it are void
        self._order = count()
        self._failures: dict[int, int] = {}  # of jobs whose disposals an operator has been told of
        self._acting: dict[str, int] = {}  # the watches that somebody is at, and with which job
        self._held: Counter[int] = Counter()  # two who retry at once may hold the same job
        self._stopped = False

    def add(self, job: Job) -> None:
        """The job has ended and its disposal is due in the job table. One that is known already is tried at once."""
        with self._changed:
            if job.id in self._failures:
                self._failures[job.id] = 0
            self._enter(job, 0.0)

    def stop(self) -> None:
        """Make `run` return after the disposal under way; what is left is taken up at the next start."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @contextmanager
    def held(self, job_ids: Collection[int]) -> Iterator[set[int]]:
        """While this lasts nothing is disposed of for these jobs: for who calls disposals off in the job table.

        But for those that it yields: they are being disposed of, and that does not come to an end.
        """
        held = set(job_ids)
        with self._changed:
            self._held.update(held)
        try:
            with self._changed:
                self._changed.wait_for(lambda: held.isdisjoint(self._acting.values()), HELD_SECONDS)
                stuck = held.intersection(self._acting.values())
            yield stuck
        finally:
            with self._changed:
                self._held -= Counter(held)
                self._changed.notify_all()

    def backlog(self) -> int:
        """How many disposals are due or under way."""
        with self._changed:
            return len(self._valid) + len(self._acting)

    def run(self) -> None:
        """Dispose until stopped. Raises FatalError where the job table is lost."""
        while (job := self._next()) is not None:
            try:
                self._dispose(job)
            finally:
                with self._changed:
                    del self._acting[job.watch]
                    self._changed.notify_all()

    def _put_off(self, job: Job, seconds: float) -> None:
        with self._changed:
            if job.id not in self._valid:  # else it was added while somebody was at it
                self._enter(job, seconds)

    def _enter(self, job: Job, seconds: float) -> None:
        order = self._valid[job.id] = next(self._order)
        heapq.heappush(self._due.setdefault(job.watch, []), (self._monotonic() + seconds, order, job))
        self._changed.notify_all()

    def _next(self) -> Job | None:
        with self._changed:
            while not self._stopped:
                job = self._take_due()
                if job is not None:
                    return job
                self._changed.wait(self._seconds_to_wait())
            return None

    def _take_due(self) -> Job | None:
        """The first that is due, of a watch that nobody is at."""
        first = min(self._tops(), default=None, key=lambda entry: entry[:2])
        if first is None or first[0] > self._monotonic():
            return None
        _, _, job = heapq.heappop(self._due[first[2].watch])
        del self._valid[job.id]
        self._acting[job.watch] = job.id
        return job

    def _tops(self) -> list[Entry]:
        """The first entry of each watch, where it is free."""
        for heap in self._due.values():
            while heap and self._valid.get(heap[0][2].id) != heap[0][1]:
                heapq.heappop(heap)
        return [heap[0] for heap in self._due.values() if heap and self._is_free(heap[0])]

    def _is_free(self, entry: Entry) -> bool:
        return entry[2].watch not in self._acting and entry[2].id not in self._held

    def _seconds_to_wait(self) -> float | None:
        """Until the next one is due; what is not free is announced when it becomes so."""
        due = [entry[0] for entry in self._tops()]
        return min(due) - self._monotonic() if due else None

    def _dispose(self, job: Job) -> None:
        try:
            end = self._come_to_an_end(job)
        except NotYet as early:
            self._put_off(job, early.seconds)
        except FatalError:
            raise
        except ConvertdError as error:
            self._again(job, error)
        except Exception as error:  # one document must not end the daemon, now and at each of its starts
            self._log.error("internal error", job=job.id, watch=job.watch, exception=traceback.format_exc())
            self._again(job, ConvertdError(f"convertd failed: {error!r}"))
        else:
            if self._failures.pop(job.id, None) is not None:
                self._note(job.watch, None)
            if end:
                self._say(job, end)

    def _come_to_an_end(self, known: Job) -> str:
        """Dispose of the source, or find that it is to stay or gone already, and record that: whatever of it fails is
        done again. Returns what became of it; nothing where a retry has called it off."""
        due = self._jobs.disposals.due_of(known.id)
        if due is None:
            return ""
        job, reason = due  # as its row is now: a retry may have found it elsewhere since it became known
        documents, disposal = self._errand(job, reason)
        try:
            # What is hidden already is surely the version of this job: given up, it would stay hidden for ever.
            if not job.submitted and not self._jobs.is_current(job) and not documents.has_begun(job):
                raise SourceChanged("a newer version of the document is queued")
            location = documents.dispose(job, disposal)
        except SourceChanged as changed:
            self._jobs.disposals.keep_source(job)
            self._kept()
            documents.recheck(job.source)
            return f"source kept: {changed.message}"
        except SourceVanished:
            self._jobs.disposals.done(job, None)
            return "source already gone"
        self._jobs.disposals.done(job, location)
        return "source moved" if location else "source deleted"

    def _again(self, job: Job, error: ConvertdError) -> None:
        failures = self._failures.get(job.id, 0)
        self._failures[job.id] = failures + 1
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
        self._put_off(job, seconds)

    def _say(self, job: Job, event: str) -> None:
        self._log.debug(event, job=job.id, watch=job.watch, source=display(job.source))

"""What commands change, the same whether the daemon does it or, when it is down, the command itself under its lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

from daemon import queries
from daemon.db import reader
from daemon.errors import ConvertdError, UsageError
from daemon.jobs import JobTable
from daemon.model import Job, State
from daemon.sources.base import Source
from daemon.sources.hidden import give_back
from daemon.switches import Switches

CHUNK = 500
LOOKED_AT = 10_000
PIECE_SECONDS = 1.0
"""What takes longer is done in pieces: neither is the command's patience worn out then, nor that of a daemon that
starts and waits for the command to release its lock. At most one step, of `CHUNK` jobs or of one document, more."""
MOST_JOBS = 100_000
MOST_ID = 2**63 - 1
CANCEL_SECONDS = 10.0


class Running(Protocol):
    """The side of a running daemon that must hear of changes; `Down` where there is none."""

    def retried(self, jobs: list[Job]) -> None:
        """These have become pending."""
        ...

    def withheld(self, job_ids: Collection[int]) -> AbstractContextManager[None]:
        """While this lasts no work on these jobs is begun."""
        ...

    def cancelled(self, jobs: list[Job]) -> None:
        """These are no longer pending."""
        ...

    def interrupt(self, job_id: int) -> bool:
        """End what is being done for this job; False where nothing is, or it is too late."""
        ...

    def still_running(self, job_ids: Collection[int], seconds: float) -> set[int]:
        """Those of these jobs that have not come to an end within the time."""
        ...

    def switched(self) -> None:
        """Pauses have changed in the job table."""
        ...

    def disposals_held(self, job_ids: list[int]) -> AbstractContextManager[set[int]]:
        """While this lasts nothing is disposed of for these jobs, but for those that it yields: they are being disposed
        of, and that does not come to an end."""
        ...


class Down:
    """No daemon is running."""

    def retried(self, jobs: list[Job]) -> None:
        pass

    def withheld(self, job_ids: Collection[int]) -> AbstractContextManager[None]:
        return nullcontext()

    def cancelled(self, jobs: list[Job]) -> None:
        pass

    def interrupt(self, job_id: int) -> bool:
        return False

    def still_running(self, job_ids: Collection[int], seconds: float) -> set[int]:
        return set()

    def switched(self) -> None:
        pass

    def disposals_held(self, job_ids: list[int]) -> AbstractContextManager[set[int]]:
        return nullcontext(set())


class Operations:
    """Carries out what commands ask for; each method takes a request and gives the answer, both as of JSON.

    An answer with a `rest` is that of a piece: `rest` is the request that goes on, and what the answers to both hold is
    to be added up.

    `served` gives the sources of the watches that are configured; `discard` removes copies of documents that were
    handed in. All may be called from any thread.
    """

    def __init__(
        self,
        database: str,
        jobs: JobTable,
        switches: Switches,
        served: Callable[[], Mapping[str, Source]],
        running: Running,
        discard: Callable[[Iterable[bytes]], None],
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._switches = switches
        self._served = served
        self._running = running
        self._discard = discard

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        """The operations by the names that commands know them by."""
        return {
            "retry": self.retry,
            "cancel": self.cancel,
            "pause": self.pause,
            "resume": self.resume,
            "prune": self.prune,
            "forget": self.forget,
        }

    def retry(self, request: dict[str, Any]) -> dict[str, Any]:
        """`ids`, or `failed` or `engine` (`below` a version), of a `watch` or of all: make those pending again.

        Of the numbers behind `after` and up to `until`: what ends while this goes on is not meant.
        """
        ids = self._wanted(request)
        deadline = time.monotonic() + PIECE_SECONDS
        served = self._served()
        answer: dict[str, Any] = {"retried": 0, "parked": 0, "refused": []}
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            jobs, reasons = self._retry(chunk, served)
            answer["retried"] += len(jobs)
            answer["parked"] += sum(job.watch not in served for job in jobs)
            answer["refused"] += reasons
            if chunk[-1] < ids[-1] and time.monotonic() >= deadline:
                return {**answer, "rest": {**request, "after": chunk[-1], "until": ids[-1]}}
        return answer

    def cancel(self, request: dict[str, Any]) -> dict[str, Any]:
        """`ids`: end jobs that are pending or being converted."""
        ids = list(dict.fromkeys(_ids(request)))
        with self._running.withheld(ids):
            interrupted = {job_id for job_id in ids if self._running.interrupt(job_id)}
            # The row of one that runs may say pending: that it has been taken is written without anybody waiting.
            late = self._running.still_running(set(ids) - interrupted, 0.0)
            ended = self._jobs.cancel([job_id for job_id in ids if job_id not in interrupted | late])
            self._running.cancelled(ended)
        done = {job.id for job in ended}
        ending = self._running.still_running(interrupted, CANCEL_SECONDS)
        states = self._states(job_id for job_id in ids if job_id not in done)
        done |= {job_id for job_id in interrupted - ending if states[job_id] == State.CANCELLED}
        refused = [
            _why_not(job_id, states[job_id], ending=job_id in ending, late=job_id in late)
            for job_id in ids
            if job_id not in done
        ]
        return {"cancelled": len(done), "refused": refused}

    def pause(self, request: dict[str, Any]) -> dict[str, Any]:
        """`watch`, None for all: stop dispatch."""
        self._switches.pause(request.get("watch"))
        return self._switched()

    def resume(self, request: dict[str, Any]) -> dict[str, Any]:
        """`watch`, None for all: go on with dispatch."""
        self._switches.resume(request.get("watch"))
        return self._switched()

    def prune(self, request: dict[str, Any]) -> dict[str, Any]:
        """`older_than_seconds`, `keep_failed`: drop finished jobs, those that ended `before` and come `after` a job."""
        deadline = time.monotonic() + PIECE_SECONDS
        before = float(request.get("before", time.time() - request["older_than_seconds"]))
        jobs, after = 0, int(request.get("after", 0))
        while True:
            pruned = self._jobs.history.prune(before, keep_failed=bool(request.get("keep_failed")), after=after)
            after, jobs = pruned.after, jobs + pruned.jobs
            with suppress(OSError):  # what has no job any more is swept at the next start
                self._discard(pruned.spooled)
            if not after:
                return {"jobs": jobs}
            if time.monotonic() >= deadline:
                return {"jobs": jobs, "rest": {**request, "before": before, "after": after}}

    def forget(self, request: dict[str, Any]) -> dict[str, Any]:
        """Drop what is known of documents that are gone from their source and have no job any more.

        `after` is a watch and the document up to which it is done (in hexadecimal digits; None: all of it). `kept` has
        a sentence for each watch of which nobody knows what is gone.
        """
        done, path = request.get("after", ("", None))
        for watch, source in sorted(self._served().items(), key=lambda served: served[0]):
            if watch < done or (watch == done and path is None):
                continue
            after = bytes.fromhex(path) if watch == done else b""
            if orphans := self._jobs.history.orphans(watch, after, LOOKED_AT):
                return self._forget_gone(watch, source, orphans)
        return {"documents": 0, "kept": []}

    def _retry(self, job_ids: list[int], served: Mapping[str, Source]) -> tuple[list[Job], list[str]]:
        """What a disposal has hidden gets its name back as soon as that is called off: the job may be cancelled, and
        never come to the fetch that would do it, too. No worker begins meanwhile, to find the document gone."""
        with self._running.disposals_held(job_ids) as stuck:
            at_rest = [job_id for job_id in job_ids if job_id not in stuck]
            due = self._jobs.disposals.due_among(at_rest)
            with self._running.withheld(due):
                jobs, reasons = self._jobs.retry(at_rest)
                self._running.retried(jobs)
                give_back(served, [job for job in jobs if job.id in due and not job.submitted])
        return jobs, reasons + [_being_disposed_of(job_id) for job_id in sorted(stuck)]

    def _wanted(self, request: dict[str, Any]) -> list[int]:
        ids = _ids(request)
        with reader(self._database) as db:
            if request.get("failed"):
                ids += queries.failed_ids(db, request.get("watch"))
            if request.get("engine"):
                ids += queries.ids_by_engine(db, request["engine"], request.get("below"), request.get("watch"))
        after, until = request.get("after", 0), request.get("until", MOST_ID)
        return sorted({job_id for job_id in ids if after < job_id <= until})

    def _states(self, ids: Iterable[int]) -> dict[int, str | None]:
        """What each of these jobs is at, for people; None where there is no such job."""
        with reader(self._database) as db:
            jobs = {job_id: queries.job(db, job_id) for job_id in ids}
        return {job_id: None if job is None else str(job["stage"] or job["state"]) for job_id, job in jobs.items()}

    def _switched(self) -> dict[str, Any]:
        self._running.switched()
        paused = self._switches.paused()
        return {"all": paused.all, "watches": sorted(paused.watches)}

    def _forget_gone(self, watch: str, source: Source, documents: Sequence[bytes]) -> dict[str, Any]:
        """Of these, as far as there is time for it. Where the source cannot be read, all that it has left is kept."""
        try:
            gone, last = _gone(source, documents)
            if gone:
                source.vouch()
            for start in range(0, len(gone), CHUNK):
                self._jobs.history.forget(watch, gone[start : start + CHUNK])
        except ConvertdError as error:
            kept = f"watch {watch}: {error.message}. {error.hint}".rstrip()
            return {"documents": 0, "kept": [kept], "rest": {"after": [watch, None]}}
        return {"documents": len(gone), "kept": [], "rest": {"after": [watch, last.hex()]}}


def _gone(source: Source, documents: Sequence[bytes]) -> tuple[list[bytes], bytes]:
    """Those of these documents that are gone, and the last one that there was time to look for."""
    deadline = time.monotonic() + PIECE_SECONDS
    gone = []
    for document in documents:
        if not source.exists(document):
            gone.append(document)
        if time.monotonic() >= deadline:
            break
    return gone, document


def _ids(request: dict[str, Any]) -> list[int]:
    ids: Iterable[Any] = request.get("ids", [])
    found = [int(job_id) for job_id in ids]
    if len(found) > MOST_JOBS:
        raise UsageError(f"more than {MOST_JOBS:,} jobs at once", "Name fewer, or use --failed.")
    return found


def _being_disposed_of(job_id: int) -> str:
    return f"job {job_id} has its document moved or deleted just now, and that takes long: try again once it is done"


def _why_not(job_id: int, state: str | None, *, ending: bool, late: bool) -> str:
    if state is None:
        return f"job {job_id} does not exist (see: convertd jobs)"
    if ending:
        return f"job {job_id} is called off, but what it waits for does not answer: it ends with that"
    if late and state == State.PENDING:
        return f"job {job_id} is just coming to its end: nothing to cancel, or try again"
    return f"job {job_id} is {state}: nothing to cancel"

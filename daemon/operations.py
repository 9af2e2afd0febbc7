"""What commands change, the same whether the daemon does it or, when it is down, the command itself under its lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from daemon.db import reader
from daemon.errors import ConvertdError
from daemon.jobs import JobTable
from daemon.model import Job
from daemon.queries import failed_ids
from daemon.sources.base import Source

CHUNK = 500


class Operations:
    """Carries out `retry` and `prune`.

    `retried` is told of jobs that have become pending; `disposals_held` keeps the janitor from acting on these
    jobs, whose disposals are being called off.
    """

    def __init__(
        self,
        database: str,
        jobs: JobTable,
        sources: Mapping[str, Source],
        retried: Callable[[list[Job]], None] = lambda jobs: None,
        disposals_held: Callable[[list[int]], AbstractContextManager[None]] = lambda ids: nullcontext(),
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._sources = sources
        self._retried = retried
        self._disposals_held = disposals_held

    def retry(self, request: dict[str, Any]) -> dict[str, Any]:
        """`ids`, or `failed` with an optional `watch`: make those jobs pending again."""
        ids = [int(job_id) for job_id in request.get("ids", [])]
        if request.get("failed"):
            with reader(self._database) as db:
                ids += failed_ids(db, request.get("watch"))
        count, parked, refused = 0, 0, []
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            with self._disposals_held(chunk):
                jobs, reasons = self._jobs.retry(chunk)
            self._retried(jobs)
            count += len(jobs)
            parked += sum(job.watch not in self._sources for job in jobs)
            refused += reasons
        return {"retried": count, "parked": parked, "refused": refused}

    def prune(self, request: dict[str, Any]) -> dict[str, Any]:
        """`older_than_seconds`, `keep_failed`: drop finished jobs, and documents whose source is gone."""
        cutoff = time.time() - float(request["older_than_seconds"])
        jobs, after = 0, 0
        while True:
            after, dropped = self._jobs.prune(cutoff, keep_failed=bool(request.get("keep_failed")), after=after)
            jobs += dropped
            if not after:
                break
        documents = sum(self._forget_gone(watch, source) for watch, source in self._sources.items())
        return {"jobs": jobs, "documents": documents}

    def _forget_gone(self, watch: str, source: Source) -> int:
        """Forget documents that are gone. Where the source cannot be read, everything is kept."""
        forgotten, after = 0, b""
        with suppress(ConvertdError):
            source.probe()
            while orphans := self._jobs.orphans(watch, after, CHUNK):
                after = orphans[-1]
                gone = [path for path in orphans if not source.exists(path)]
                self._jobs.forget(watch, gone)
                forgotten += len(gone)
        return forgotten

"""The real job table with the real dispatcher, as a benchmark drives it."""

from __future__ import annotations

import os
import time

from daemon.db import Readers, Writer
from daemon.dispatch import Dispatcher
from daemon.jobs import JobTable
from daemon.model import Candidate, Conversion, Job
from daemon.sources.scan import BATCH
from daemon.statedir import StateDir

WATCH = "bench"
CONVERTED = Conversion(b"# A result\n", "0" * 64, "application/pdf", "liteparse", "1", pages=1, characters=10)


class Ours:
    """Job table and dispatcher in a state_dir, as the daemon has them: discovery enqueues a batch of its scan at a
    time, a worker takes a job, says that it has started, and completes it, durably (synchronous=FULL)."""

    def __init__(self, folder: str) -> None:
        state = StateDir(folder)
        self.writer = Writer(state.database)
        self.writer.start()
        self.jobs = JobTable(self.writer, Readers(state.database))
        self.jobs.register(WATCH, "/in", "/out")
        self.dispatcher = Dispatcher((WATCH,), self.jobs.pending, time.time, time.monotonic)

    def connect(self) -> None:
        """The writer's connection is open, and no other is needed."""

    def put(self, count: int, prefix: str = "") -> None:
        """Enqueue so many new documents."""
        for start in range(0, count, BATCH):
            names = range(start, min(start + BATCH, count))
            page = [Candidate(os.fsencode(f"{prefix}folder/document-{name:07}.pdf"), "1-2-3-4", 1000) for name in names]
            jobs, _ = self.jobs.enqueue(WATCH, page, 5)
            self.dispatcher.add(jobs)

    def take(self) -> Job:
        """Claim the next job."""
        job = self.dispatcher.take()
        assert job is not None
        self.jobs.start(job)
        return job

    def finish(self, job: Job) -> None:
        """Complete it, durable on return."""
        assert self.jobs.complete(job, CONVERTED, f"/out/{job.id}.md", dispose=False)
        self.dispatcher.done(job)

    def close(self) -> None:
        """End the writer."""
        self.writer.close()

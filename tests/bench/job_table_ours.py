"""The real job table with the real dispatcher, as a benchmark drives it."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

from daemon.config import for_folders
from daemon.db import Readers, Writer
from daemon.dispatch import Dispatcher
from daemon.endings import Endings
from daemon.jobs import JobTable
from daemon.model import Candidate, Conversion, Job, State
from daemon.pipeline import Route
from daemon.sources.scan import BATCH
from daemon.statedir import StateDir

WATCH = "bench"
END_SECONDS = 60.0
CONVERTED = Conversion(b"# A result\n", "0" * 64, "application/pdf", "liteparse", "1", pages=1, characters=10)


class Ours:
    """Job table and dispatcher in a state_dir, as the daemon has them: discovery enqueues a batch of its scan at a
    time, a worker takes a job, says that it has started, and hands it over as converted. It does not wait until that
    is durable (synchronous=FULL); `settle` does, for all of them."""

    def __init__(self, folder: str) -> None:
        state = StateDir(folder)
        self.writer = Writer(state.database)
        self.writer.start()
        self.jobs = JobTable(self.writer, Readers(state.database))
        self.jobs.register(WATCH, "/in", "/out")
        self.dispatcher = Dispatcher((WATCH,), self.jobs.pending, time.time, time.monotonic)
        self.ended = 0
        self.route, self.endings = self._endings(folder)
        self.telling = threading.Thread(target=self.endings.run, daemon=True)
        self.telling.start()

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
        """The job is converted."""
        self.endings.completed(self.route, job, CONVERTED, f"/out/{job.id}.md")

    def finish_now(self, job: Job) -> None:
        """The job is converted, durable on return."""
        assert self.jobs.complete(job, CONVERTED, f"/out/{job.id}.md", dispose=False)
        self.dispatcher.done(job)

    def settle(self) -> None:
        """Wait until all that is finished is durable, and told."""
        self.endings.close(END_SECONDS)
        self.telling.join(END_SECONDS)

    def _endings(self, folder: str) -> tuple[Route, Endings]:
        """As the daemon puts them together, with a source that wants to hear of nothing."""
        documents = cast(Any, SimpleNamespace(settled=lambda job, state: None))
        watch = for_folders("/in", "/out", folder).watches[0]
        route = Route(watch, documents, cast(Any, None), documents)
        log = cast(Any, SimpleNamespace(info=lambda event, **values: None))
        endings = Endings(
            {WATCH: route},
            {},
            self.jobs,
            self.dispatcher,
            cast(Any, None),
            self._count,
            lambda job: None,
            threading.Event(),
            log,
        )
        return route, endings

    def _count(self, state: State) -> None:
        assert state is State.COMPLETED
        self.ended += 1

    def close(self) -> None:
        """End the writer."""
        self.writer.close()


class Waiting(Ours):
    """With workers that wait until what they have completed is durable, which the daemon's do not."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._counting = threading.Lock()

    def finish(self, job: Job) -> None:
        """The job is converted, durable on return."""
        self.finish_now(job)
        with self._counting:
            self._count(State.COMPLETED)

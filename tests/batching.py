"""A job table with batches, and a clock that is put forward at will."""

from __future__ import annotations

from daemon import batches
from daemon.batches import Batch, Batches
from daemon.db import Readers, Writer
from daemon.errors import DocumentError, Kind
from daemon.jobs import JobTable
from daemon.model import Candidate, Conversion, Job
from daemon.naming import batch_of

CONVERSION = Conversion(b"# hi", "ab" * 32, "application/pdf", "liteparse", "1.0", pages=3)


class Bench:
    """A job table with a clock that stands until it is put forward."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.now = 1000.0
        self.writer = Writer(database)
        self.writer.start()
        readers = Readers(database)
        self.jobs = JobTable(self.writer, readers, clock=lambda: self.now)
        self.batches = Batches(self.writer, readers, clock=lambda: self.now)
        self.jobs.register("inbox", "/in", "/out")

    def add(self, source: str, version: str = "1", watch: str = "inbox") -> Job:
        candidate = Candidate(source.encode(), version, 10)
        return self.jobs.enqueue(watch, [candidate], 5, batch_of)[0][0]

    def done(self, source: str, version: str = "1") -> Job:
        job = self.add(source, version)
        self.jobs.start(job)
        assert self.jobs.complete(job, CONVERSION, f"/out/{source}.md", dispose=False)
        return job

    def fail(self, source: str) -> Job:
        job = self.add(source)
        self.jobs.start(job)
        assert self.jobs.fail(job, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
        return job

    def batch(self, name: str = "x", watch: str | None = None) -> Batch:
        (found,) = batches.named(self.batches.rows, name, watch)
        return found

    def counts(self, name: str = "x") -> dict[str, int]:
        return batches.counts(self.batches.rows, self.batch(name))

    def due(self) -> list[str]:
        return [batch.name for batch in self.batches.due("inbox", 10)]

    def later(self, seconds: float = batches.QUIET_SECONDS) -> None:
        self.now += seconds

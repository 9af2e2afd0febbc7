"""One job's way: when a document need not be converted again, on a real job table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.cancellations import Cancellations
from daemon.config import for_folders
from daemon.db import Readers, Writer
from daemon.errors import Stopped
from daemon.jobs import JobTable
from daemon.model import Candidate, Conversion, Job, Stage
from daemon.pipeline import Outcome, Pipeline, Policy, Route, sha256
from daemon.sources.base import Fetched


class Bench:
    """A pipeline over a job table, whose converters refuse: to try to convert is `Stopped`. All documents are alike."""

    def __init__(self, folder: Path) -> None:
        self.writer = Writer(str(folder / "convertd.db"))
        self.writer.start()
        self.jobs = JobTable(self.writer, Readers(str(folder / "convertd.db")))
        self.jobs.register("inbox", "in", "out")
        self.document = folder / "a.txt"
        self.document.write_bytes(b"the same bytes")
        config = for_folders(str(folder / "in"), str(folder / "out"), str(folder / "state"))
        documents = SimpleNamespace(
            fetch=self.fetch, may_be_same=lambda earlier, later: True, verify=lambda job, fetched: None
        )
        self.route = Route(config.watches[0], cast(Any, documents), cast(Any, None), cast(Any, None))
        pool = SimpleNamespace(slot=self.slot)
        policy = Policy(config.limits, config.retry)
        cancellations = Cancellations(lambda job_id: None)
        self.pipeline = Pipeline(self.jobs, cast(Any, pool), policy, cancellations, lambda: False, time.time)

    @contextmanager
    def fetch(self, job: Job) -> Iterator[Fetched]:
        with open(self.document, "rb") as file:
            yield Fetched(file.fileno(), self.document.stat().st_size)

    def slot(self, *args: Any) -> Any:
        raise Stopped("no converter")

    def version(self, version: str) -> Job:
        (job,), _ = self.jobs.enqueue("inbox", [Candidate(b"a.txt", version, 14)], 5)
        self.jobs.start(job)
        return job

    def complete(self, job: Job) -> None:
        with self.fetch(job) as document:
            digest = sha256(document)
        conversion = Conversion(b"# hi", digest, "text/plain", "text", "1.0")
        assert self.jobs.complete(job, conversion, "out.md", dispose=False)

    def run(self, job: Job) -> Outcome:
        return self.pipeline.run(self.route, job)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.writer.close()


def test_what_holds_the_bytes_that_were_converted_last_is_not_converted_again(bench: Bench) -> None:
    bench.complete(bench.version("1"))
    assert bench.run(bench.version("2")) == Outcome(None)


def test_what_holds_the_bytes_of_before_an_older_version_was_delivered_is_converted_again(bench: Bench) -> None:
    """It is found while the other one is being delivered, or that is not recorded yet: its own row knows the one
    before, and the sink holds neither."""
    bench.complete(bench.version("1"))
    between = bench.version("2")
    restored = bench.version("3")
    assert restored.previous_version == "1"
    bench.jobs.stage(between, Stage.DELIVER)
    bench.complete(between)
    with pytest.raises(Stopped):
        bench.run(restored)

"""The worker: what becomes of a job where even its end cannot be made known, on a real job table."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon import queries
from daemon.config import for_folders
from daemon.db import Readers, Writer, reader
from daemon.dispatch import Dispatcher
from daemon.endings import Endings
from daemon.errors import ConvertdError, DocumentError, EnvironmentProblem, Kind, Stopped, TransientError
from daemon.health import REASON, Health
from daemon.jobs import JobTable
from daemon.model import Candidate, Job
from daemon.naming import PATH_BYTES
from daemon.pipeline import Policy, Route
from daemon.worker import DOUBTS_ALLOWED, REPORTS_TRIED, Worker
from tests.harness import until

GONE = EnvironmentProblem("the document's own folder cannot be used")


class Quiet:
    """A log that nobody reads."""

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **values: None


class Sick:
    """A pipeline in which every document meets sick surroundings, which the watch's probe knows nothing of."""

    def __init__(self) -> None:
        self.runs = 0
        self.problem = GONE

    def run(self, route: Route, job: Job) -> Any:
        self.runs += 1
        raise self.problem

    def left(self, job: Job) -> None:
        pass


class Sink:
    """Takes error files; `errors` are raised first, one after the other."""

    name_bytes = PATH_BYTES

    def __init__(self) -> None:
        self.errors: list[ConvertdError] = []
        self.published: list[str | bytes] = []

    def publish(self, name: str | bytes, files: Mapping[str, Any], origin: Any) -> str:
        if self.errors:
            raise self.errors.pop(0)
        self.published.append(name)
        return "there"


class Bench:
    """One worker with one job that is on its last attempt, over a real job table."""

    def __init__(self, folder: Path) -> None:
        self.database = str(folder / "convertd.db")
        self.writer = Writer(self.database)
        self.writer.start()
        self.jobs = JobTable(self.writer, Readers(self.database))
        config = for_folders(str(folder / "in"), str(folder / "out"), str(folder / "state"))
        self.dispatcher = Dispatcher(["inbox"], self.jobs.pending, time.time, time.monotonic)
        self.sink, self.pipeline = Sink(), Sick()
        self.probe_error: ConvertdError | None = None
        self.health = Health("inbox", self.probe, self.dispatcher, cast(Any, Quiet()))
        documents = SimpleNamespace(settled=lambda job, state: None)
        watch = config.watches[0]._replace(name="inbox")
        route = Route(watch, cast(Any, documents), cast(Any, self.sink), cast(Any, documents))
        routes, healths = {"inbox": route}, {"inbox": self.health}
        endings = Endings(
            routes,
            healths,
            self.jobs,
            self.dispatcher,
            cast(Any, None),
            lambda state: None,
            lambda job: None,
            threading.Event(),
            cast(Any, Quiet()),
        )
        self.worker = Worker(
            routes,
            healths,
            self.jobs,
            self.dispatcher,
            cast(Any, self.pipeline),
            endings,
            cast(Any, None),
            Policy(config.limits, config.retry._replace(attempts=1, backoff_seconds=())),
            ["convertd", "retry"],
            cast(Any, Quiet()),
            time.time,
        )
        self.jobs.register("inbox", "/in", "/out")
        new, _ = self.jobs.enqueue("inbox", [Candidate(b"a.pdf", "1", 10)], 5)
        self.job = new[0]
        self.dispatcher.add(new)
        self.crashed: BaseException | None = None
        self.thread = threading.Thread(target=self.run)

    def probe(self, size_bytes: int) -> None:
        if self.probe_error is not None:
            raise self.probe_error

    def run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.crashed = error

    def state(self) -> str:
        with reader(self.database) as db:
            record = queries.job(db, self.job.id)
        assert record is not None
        return str(record["state"])

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait, and resume the watch whenever it is paused, as its thread in the daemon does."""

        def look() -> bool:
            self.dispatcher.resume("inbox", REASON)
            return done() or not self.thread.is_alive()

        until(look, what)
        assert self.crashed is None

    def close(self) -> None:
        self.dispatcher.stop()
        self.thread.join(30)
        self.writer.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_an_error_file_that_meets_sick_surroundings_ends_no_worker(bench: Bench) -> None:
    """The document was at fault for once, and then the sink was not there."""
    bench.sink.errors.append(EnvironmentProblem("the sink cannot be used"))
    bench.thread.start()
    bench.until(lambda: bench.state() == "failed", "the job has failed")
    assert bench.sink.published == ["a.pdf"]


def test_an_error_file_that_would_replace_that_of_another_document_is_not_tried_again(bench: Bench) -> None:
    bench.sink.errors.append(DocumentError(Kind.INTERNAL, "the name is the same in this sink"))
    bench.thread.start()
    bench.until(lambda: bench.state() == "failed", "the job has failed")
    assert (bench.sink.published, bench.sink.errors) == ([], [])


def test_sick_surroundings_and_an_error_file_that_is_never_written_come_to_an_end(bench: Bench) -> None:
    """Each would be given another chance by what the other has used up, if both were counted together."""
    bench.sink.errors += [TransientError(Kind.INTERNAL, "the output cannot be written") for _ in range(1000)]
    bench.thread.start()
    bench.until(lambda: bench.state() == "failed", "the job has failed")
    assert bench.sink.published == []
    assert len(bench.sink.errors) == 1000 - REPORTS_TRIED - 1


def test_what_no_document_can_be_the_cause_of_is_never_held_against_one(bench: Bench) -> None:
    bench.pipeline.problem = EnvironmentProblem("no converter can be started", certain=True)
    bench.thread.start()
    bench.until(lambda: bench.pipeline.runs > 3 * (DOUBTS_ALLOWED + 1), "it has been tried often")
    assert bench.state() in ("pending", "processing")
    assert bench.sink.published == []


def test_a_stop_while_it_is_found_out_who_is_to_blame_ends_no_worker(bench: Bench) -> None:
    bench.thread.start()
    bench.until(lambda: bench.pipeline.runs >= DOUBTS_ALLOWED - 1, "the surroundings have been believed to be sick")
    bench.probe_error = Stopped("stopped while talking to the server")
    bench.until(lambda: bench.pipeline.runs > DOUBTS_ALLOWED, "the probe was asked")
    bench.dispatcher.stop()
    bench.thread.join(30)
    assert bench.crashed is None
    assert bench.state() == "pending"

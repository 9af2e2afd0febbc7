"""Calling jobs off: what a command is told is what becomes of the job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.cancellations import Cancellations
from daemon.config import for_folders
from daemon.db import Readers, Writer
from daemon.dispatch import Dispatcher
from daemon.errors import Cancelled, EnvironmentProblem, Kind, SourceChanged, TransientError
from daemon.jobs import JobTable
from daemon.live import Live
from daemon.model import Candidate, Conversion, Job, State
from daemon.operations import Down, Operations
from daemon.pipeline import Pipeline, Policy, Route
from daemon.switches import Switches
from tests.harness import until

CONVERSION = Conversion(b"# hi", "ab" * 32, "text/plain", "text", "1.0")


@pytest.fixture
def cancellations() -> Cancellations:
    return Cancellations(lambda job_id: None)


def test_a_job_whose_end_is_settled_cannot_be_called_off_before_it_is_recorded(cancellations: Cancellations) -> None:
    assert cancellations.close(7)
    assert not cancellations.add(7)
    cancellations.forget(7)
    assert not cancellations.wanted(7), "a retry of it runs"
    assert cancellations.add(7)
    assert not cancellations.close(7)


def test_a_call_that_comes_too_late_does_not_hit_a_retry(cancellations: Cancellations) -> None:
    running = [True, False]  # it ends between the two looks
    dispatcher = SimpleNamespace(runs=lambda job_ids, seconds=0.0: {7} if running.pop(0) else set())
    live = Live(cast(Any, dispatcher), cast(Any, None), cast(Any, None), cancellations)
    assert not live.interrupt(7)
    assert not cancellations.wanted(7)


def test_a_call_that_its_worker_has_heeded_at_once_is_one(cancellations: Cancellations) -> None:
    looks = 0

    def runs(job_ids: Collection[int], seconds: float = 0.0) -> set[int]:
        nonlocal looks
        looks += 1
        if looks == 1:
            return {7}
        assert not cancellations.close(7)
        return set()

    live = Live(cast(Any, SimpleNamespace(runs=runs)), cast(Any, None), cast(Any, None), cancellations)
    assert live.interrupt(7)


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (EnvironmentProblem("no answer", ""), Cancelled),
        (TransientError(Kind.UNREADABLE, "cannot be read"), Cancelled),
        (SourceChanged("changed"), SourceChanged),
    ],
)
def test_what_is_called_off_while_it_is_fetched_is_not_tried_again(
    tmp_path: Path, cancellations: Cancellations, error: Exception, becomes: type[Exception]
) -> None:
    @contextmanager
    def fetch(job: Job) -> Iterator[Any]:
        cancellations.add(job.id)
        raise error
        yield

    documents = SimpleNamespace(fetch=fetch)
    config = for_folders(str(tmp_path / "in"), str(tmp_path / "out"), str(tmp_path / "state"))
    route = Route(config.watches[0], cast(Any, documents), cast(Any, None), cast(Any, None))
    policy = Policy(config.limits, config.retry)
    pipeline = Pipeline(cast(Any, None), cast(Any, None), policy, cancellations, lambda: False, time.time)
    job = Job(7, "inbox", b"a.txt", "1", 1, 5, 0, 0, 0.0)
    with pytest.raises(becomes):
        pipeline.run(route, job)
    assert not cancellations.add(7), "its end is settled"
    pipeline.left(job)
    assert not cancellations.wanted(7)


class Interrupting(Down):
    """A daemon that runs all jobs, and brings them to an end as they are called off."""

    def __init__(self, end: Callable[[int], None], left: Collection[int] = ()) -> None:
        self._end = end
        self._left = set(left)

    def interrupt(self, job_id: int) -> bool:
        self._end(job_id)
        return True

    def still_running(self, job_ids: Collection[int], seconds: float) -> set[int]:
        return self._left & set(job_ids)


def test_only_what_has_ended_so_is_said_to_be_cancelled(tmp_path: Path) -> None:
    database = str(tmp_path / "convertd.db")
    writer = Writer(database)
    writer.start()
    try:
        table = JobTable(writer, Readers(database))
        table.register("inbox", "in", "out")
        jobs, _ = table.enqueue("inbox", [Candidate(b"%d" % number, "1", 1) for number in range(4)], 5)
        for job in jobs:
            table.start(job)
        ends = [State.CANCELLED, State.SUPERSEDED]

        def end(job_id: int) -> None:
            if job_id <= len(ends):
                table.end(jobs[job_id - 1], ends[job_id - 1])

        running = Interrupting(end, left={3})
        operations = Operations(
            database, table, Switches(writer, Readers(database)), dict, running, lambda locations: None
        )
        answer = operations.cancel({"ids": [1, 2, 3, 4, 1, 99]})
    finally:
        writer.close()
    assert answer["cancelled"] == 1
    two, three, four, unknown = answer["refused"]
    assert "superseded" in two
    assert "does not answer" in three
    assert "nothing to cancel" in four
    assert "does not exist" in unknown


def test_an_operation_of_somebody_else_that_fails_cancels_no_cancellation(tmp_path: Path) -> None:
    database = str(tmp_path / "convertd.db")
    writer = Writer(database)
    go_on = threading.Event()
    writer.start()
    try:
        table = JobTable(writer, Readers(database))
        table.register("inbox", "in", "out")
        (job,), _ = table.enqueue("inbox", [Candidate(b"a", "1", 1)], 5)
        switches = Switches(writer, Readers(database))
        operations = Operations(database, table, switches, dict, Down(), lambda locations: None)
        answers: list[dict[str, Any]] = []
        writer.post(lambda db: go_on.wait(60))
        until(lambda: not len(writer._inflow), "the writer is busy")
        thread = threading.Thread(target=lambda: answers.append(operations.cancel({"ids": [job.id]})))
        thread.start()
        until(lambda: len(writer._inflow) == 1, "the cancellation is queued")
        writer.post(lambda db: db.execute("no SQL"))  # in the same transaction, which is rolled back for it
        go_on.set()
        thread.join(60)
        assert answers == [{"cancelled": 1, "refused": []}]
    finally:
        go_on.set()
        writer.close()


def test_who_waits_for_a_running_job_hears_when_it_is_done() -> None:
    dispatcher = Dispatcher(["inbox"], lambda watch, limit: [], time.time, time.monotonic)
    job = Job(7, "inbox", b"a.txt", "1", 1, 5, 0, 0, 0.0)
    dispatcher.add([job])
    assert dispatcher.runs([7]) == set()
    assert dispatcher.take() == job
    assert dispatcher.runs([7, 8], 0.01) == {7}
    dispatcher.done(job)
    assert dispatcher.runs([7], 60.0) == set()


def test_a_job_whose_result_appears_is_not_cancelled_though_its_row_says_pending(
    tmp_path: Path, cancellations: Cancellations
) -> None:
    """That it was taken could not be written: the disk was full for a moment."""
    database = str(tmp_path / "convertd.db")
    writer = Writer(database)
    writer.start()
    try:
        table = JobTable(writer, Readers(database))
        table.register("inbox", "in", "out")
        dispatcher = Dispatcher(["inbox"], table.pending, time.time, time.monotonic)
        dispatcher.add(table.enqueue("inbox", [Candidate(b"a", "1", 1)], 5)[0])
        job = dispatcher.take()
        assert job is not None
        assert cancellations.close(job.id)  # it is about to be delivered
        live = Live(dispatcher, cast(Any, None), cast(Any, None), cancellations)
        switches = Switches(writer, Readers(database))
        operations = Operations(database, table, switches, dict, live, lambda locations: None)
        answer = operations.cancel({"ids": [job.id]})
        assert answer["cancelled"] == 0
        assert "just coming to its end" in answer["refused"][0]
        assert table.complete(job, CONVERSION, "a.md", dispose=False)
    finally:
        writer.close()


def test_nobody_takes_up_what_is_just_being_cancelled(
    tmp_path: Path, cancellations: Cancellations, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = str(tmp_path / "convertd.db")
    writer = Writer(database)
    writer.start()
    try:
        table = JobTable(writer, Readers(database))
        table.register("inbox", "in", "out")
        dispatcher = Dispatcher(["inbox"], table.pending, time.time, time.monotonic)
        dispatcher.add(table.enqueue("inbox", [Candidate(b"a", "1", 1), Candidate(b"b", "1", 1)], 5)[0])
        live = Live(dispatcher, cast(Any, None), cast(Any, None), cancellations)
        switches = Switches(writer, Readers(database))
        operations = Operations(database, table, switches, dict, live, lambda locations: None)
        taken = []
        cancel = table.cancel

        def watched(ids: Collection[int]) -> list[Job]:
            taken.append(dispatcher.take())
            return cancel(ids)

        monkeypatch.setattr(table, "cancel", watched)
        assert operations.cancel({"ids": [1]}) == {"cancelled": 1, "refused": []}
    finally:
        writer.close()
    assert [job and job.id for job in taken] == [2]

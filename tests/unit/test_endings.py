"""How jobs end: a worker does not wait for its commit, and nothing is told before it is durable. A real job table."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import apsw
import pytest

from daemon import endings as module
from daemon.config import for_folders
from daemon.db import Readers, Writer, reader
from daemon.dispatch import Dispatcher
from daemon.endings import Endings
from daemon.errors import FatalError
from daemon.health import Health
from daemon.jobs import Completion, JobTable
from daemon.model import Candidate, Conversion, Disposal, Job, State
from daemon.pipeline import Route
from tests.harness import until

CONVERTED = Conversion(b"# A result\n", "0" * 64, "application/pdf", "liteparse", "1", pages=1, characters=10)


class Table:
    """A job table whose writer can be held up, or meet a full disk, at each of its commits."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "convertd.db")
        self.go_on = threading.Event()
        self.go_on.set()
        self.full = False
        self.commits = 0
        self.writer = Writer(self.path, self.fault)
        self.writer.start()
        self.jobs = JobTable(self.writer, Readers(self.path))
        self.jobs.register("inbox", "/in", "/out")
        self.dispatcher = Dispatcher(["inbox"], self.jobs.pending, time.time, time.monotonic)
        self.halt = threading.Event()
        self.told: list[tuple[str, int | State]] = []
        documents = cast(Any, SimpleNamespace(settled=lambda job, state: self.told.append(("settled", job.id))))
        watch = for_folders(str(folder / "in"), str(folder / "out"), str(folder / "state")).watches[0]
        self.route = Route(watch._replace(name="inbox"), documents, cast(Any, None), documents)
        janitor = SimpleNamespace(add=lambda job: self.told.append(("due", job.id)))
        self.warnings: list[tuple[str, int]] = []
        silent = cast(Any, SimpleNamespace(**dict.fromkeys(("info", "error"), lambda event, **values: None)))
        silent.warning = lambda event, **values: self.warnings.append((event, values.get("job", 0)))
        self.routes = {"inbox": self.route}
        self.endings = Endings(
            self.routes,
            {"inbox": Health("inbox", lambda size_bytes: None, self.dispatcher, silent)},
            self.jobs,
            self.dispatcher,
            cast(Any, janitor),
            lambda state: self.told.append(("ended", state)),
            lambda job: self.told.append(("left", job.id)),
            self.halt,
            silent,
        )
        self.crash: BaseException | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            self.endings.run()
        except BaseException as error:
            self.crash = error

    def fault(self, label: str) -> None:
        if label == "before-commit":
            assert self.go_on.wait(60)
            if self.full:
                self.commits += 1
                raise apsw.FullError("database or disk is full")

    def taken(self, count: int) -> list[Job]:
        """So many jobs that a worker has."""
        names = [Candidate(b"%d.pdf" % number, "1", 10) for number in range(count)]
        self.dispatcher.add(self.jobs.enqueue("inbox", names, 5)[0])
        jobs = []
        for _ in range(count):
            job = self.dispatcher.take()
            assert job is not None
            self.jobs.start(job)
            jobs.append(job)
        self.jobs.release(Job(0, "inbox", b"", "", 0, 5, 0, 0, 0.0))  # nobody's: all before it is committed
        return jobs

    def completed(self, job: Job) -> None:
        self.endings.completed(self.route, job, CONVERTED, "/out/a.md")

    def states(self) -> list[str]:
        with reader(self.path) as db:
            return [row[0] for row in db.execute("SELECT state FROM jobs ORDER BY id")]

    def close(self) -> None:
        self.go_on.set()
        self.halt.set()
        self.endings.close(0.0 if self.crash else 30.0)
        self.thread.join(30)
        self.writer.close()


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path)
    yield made
    made.close()


def test_a_worker_goes_on_while_the_disk_is_slow_and_nothing_is_told_before_it_is_durable(table: Table) -> None:
    jobs = table.taken(3)
    table.go_on.clear()
    for job in jobs:
        table.completed(job)
    assert table.states() == ["processing"] * 3
    assert table.told == []
    assert table.dispatcher.runs([job.id for job in jobs]) == {job.id for job in jobs}
    table.go_on.set()
    until(table.dispatcher.idle, "all are done")
    assert table.states() == ["completed"] * 3
    until(lambda: len(table.told) == 9, "all is told")
    for job in jobs:
        mine = [what for what, which in table.told if which == job.id]
        assert mine == ["settled", "left"]
    assert table.told.count(("ended", State.COMPLETED)) == 3


def test_a_source_is_due_for_disposal_only_once_the_job_is_durable(table: Table) -> None:
    (job,) = table.taken(1)
    table.route = replace(table.route, watch=table.route.watch._replace(on_success=Disposal("delete")))
    table.go_on.clear()
    table.completed(job)
    assert ("due", job.id) not in table.told
    table.go_on.set()
    until(lambda: ("due", job.id) in table.told, "it is due")
    assert table.states() == ["completed"]


def test_a_result_of_a_job_that_somebody_else_has_ended_is_told_of(table: Table) -> None:
    one, other = table.taken(2)
    assert table.jobs.end(one, State.CANCELLED)
    for job in (one, other):
        table.completed(job)
    until(table.dispatcher.idle, "both are done")
    until(lambda: ("settled", other.id) in table.told and table.warnings, "that is told")
    assert table.warnings == [("delivered for a job that had ended before", one.id)]
    assert table.states() == ["cancelled", "completed"]
    assert ("settled", one.id) not in table.told


def test_a_full_disk_of_the_state_is_waited_for(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORD_AGAIN_SECONDS", 0.001)
    jobs = table.taken(2)
    table.full = True
    for job in jobs:
        table.completed(job)
    until(lambda: table.commits > 5, "it is tried again and again")
    assert table.told == []
    table.full = False
    until(table.dispatcher.idle, "all are done")
    assert table.states() == ["completed", "completed"]
    assert table.told.count(("ended", State.COMPLETED)) == 2


def test_what_a_disk_has_refused_that_is_well_by_now_is_recorded_at_once(table: Table) -> None:
    first, second = table.taken(2)
    told, go_on = threading.Event(), threading.Event()

    def settled(job: Job, state: State) -> None:
        told.set()
        assert go_on.wait(60)

    cast(Any, table.route.source).settled = settled
    table.completed(first)
    assert told.wait(60)
    table.full = True
    table.completed(second)
    until(lambda: table.commits, "it is refused, and nobody has heard of that yet")
    table.full = False
    table.halt.set()  # a last chance, which it must be given
    go_on.set()
    until(table.dispatcher.idle, "both are done")
    assert table.states() == ["completed", "completed"]
    assert not table.dispatcher.paused("inbox"), "the disk is well"


def test_the_source_that_a_watch_had_when_the_job_began_is_told_beside_the_one_it_has_now(table: Table) -> None:
    """A queue keeps the message hidden that the old one has in hand, until that one is told."""
    (job,) = table.taken(1)
    later = cast(Any, SimpleNamespace(settled=lambda job, state: table.told.append(("settled by the new one", job.id))))
    table.routes["inbox"] = replace(table.route, source=later)
    table.completed(job)
    until(table.dispatcher.idle, "it is done")
    assert table.told[:2] == [("settled", job.id), ("settled by the new one", job.id)]
    assert table.told.count(("ended", State.COMPLETED)) == 1


def test_what_is_told_leaves_no_garbage(table: Table) -> None:
    (job,) = table.taken(1)
    completion = table.jobs.completion(job, CONVERTED, "/out/a.md", dispose=False)
    gone = weakref.ref(completion)
    told: SimpleQueue[Any] = SimpleQueue()

    def hand_over(completion: Completion) -> None:
        completion.record_later(told.put, completion)

    gc.disable()
    try:
        hand_over(completion)
        assert told.get(timeout=30).outcome()
        del completion
        table.writer.call(lambda db: None)  # the writer has another batch in hand
        until(lambda: gone() is None, "it has gone with its last user", 10)
    finally:
        gc.enable()


def test_a_halt_leaves_what_cannot_be_recorded_to_the_next_start(table: Table) -> None:
    (job,) = table.taken(1)
    table.full = True
    table.completed(job)
    until(lambda: table.commits > 1, "it is tried again")
    table.halt.set()
    until(table.dispatcher.idle, "nobody has it any more")
    until(lambda: table.told == [("left", job.id)], "no end of it is told")
    assert table.states() == ["processing"]


def test_of_a_job_that_somebody_else_has_ended_no_end_is_told(table: Table) -> None:
    (job,) = table.taken(1)
    table.jobs.end(job, State.CANCELLED)
    table.completed(job)
    until(lambda: table.told == [("left", job.id)], "it is left")
    assert table.states() == ["cancelled"]
    assert table.dispatcher.idle()


def test_a_worker_waits_where_too_much_is_under_way(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNDER_WAY", 2)
    jobs = table.taken(3)
    table.go_on.clear()
    handed = []

    def hand_over() -> None:
        for job in jobs:
            table.completed(job)
            handed.append(job)

    worker = threading.Thread(target=hand_over, daemon=True)
    worker.start()
    until(lambda: table.endings._changed._waiters, "it waits")  # type: ignore[attr-defined]
    assert len(handed) == 2
    table.go_on.set()
    worker.join(30)
    assert len(handed) == 3
    until(table.dispatcher.idle, "all are done")
    assert table.states() == ["completed"] * 3


def test_a_halt_ends_the_waiting_for_room(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNDER_WAY", 1)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    first, second = table.taken(2)
    table.go_on.clear()
    table.completed(first)
    table.halt.set()
    table.completed(second)  # returns
    assert table.told == [("left", second.id)]
    assert table.dispatcher.runs([second.id]) == set()


def test_closing_waits_for_what_is_under_way(table: Table) -> None:
    jobs = table.taken(2)
    table.go_on.clear()
    for job in jobs:
        table.completed(job)
    closing = threading.Thread(target=table.endings.close, args=(30.0,), daemon=True)
    closing.start()
    assert table.thread.is_alive()
    table.go_on.set()
    closing.join(30)
    table.thread.join(30)
    assert not table.thread.is_alive()
    assert table.states() == ["completed", "completed"]
    assert table.told.count(("ended", State.COMPLETED)) == 2


def test_a_lost_job_table_ends_the_thread_so_that_the_daemon_hears_of_it(table: Table) -> None:
    first, second = table.taken(2)

    def die(db: Any) -> None:
        table.completed(first)  # behind what the writer dies of
        raise SystemExit

    table.writer.post(die)
    until(lambda: isinstance(table.crash, FatalError), "the thread has ended")
    with pytest.raises(FatalError):
        table.completed(second)

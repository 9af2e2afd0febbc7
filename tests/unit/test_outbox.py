"""The outbox: recorded with what it tells, kept for each target, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import outbox as module
from daemon import queries
from daemon.db import Connection, Readers, Writer, reader
from daemon.errors import DocumentError, Kind
from daemon.jobs import JobTable
from daemon.outbox import Outbox
from tests.unit.test_jobs import CONVERSION, enqueue


class Box:
    """An outbox with its writer, and what `status` sees of it."""

    def __init__(self, path: Path, limit: int = 1000) -> None:
        self.path = str(path / "convertd.db")
        self.writer = Writer(self.path)
        self.writer.start()
        self.outbox = Outbox(self.writer, Readers(self.path), clock=lambda: 1000.0, limit=limit)
        self.heard = 0
        self.outbox.listen(self._hear)

    def _hear(self) -> None:
        self.heard += 1

    def record(self, *payloads: str) -> None:
        def operation(db: Connection) -> None:
            for payload in payloads:
                self.outbox.record(db, payload)

        self.writer.call(operation)

    def after(self, event_id: int) -> list[str]:
        return [event.payload for event in self.outbox.after(event_id, 10_000)]

    def settle(self) -> None:
        """All that was written without waiting is there."""
        self.writer.call(lambda db: None)

    def state(self) -> dict[str, tuple[int, float | None, int]]:
        self.settle()
        with reader(self.path) as db:
            found = queries.outbox(db)
        return {name: (row["waiting"], row["waiting_since"], row["dropped"]) for name, row in found.items()}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.writer.close()


def test_without_a_target_nothing_is_kept(box: Box) -> None:
    assert not box.outbox.wanted
    box.record("a")
    assert box.after(0) == []
    assert box.state() == {}


def test_each_target_is_as_far_as_it_is(box: Box) -> None:
    assert (box.outbox.join("command"), box.outbox.join("webhook")) == (0, 0)
    assert box.outbox.wanted
    box.record("a", "b")
    first, second = box.outbox.after(0, 10)
    assert (first.payload, second.payload) == ("a", "b")
    box.outbox.delivered("command", second.id)
    box.outbox.delivered("webhook", first.id)
    assert box.state() == {"command": (0, None, 0), "webhook": (1, 1000.0, 0)}
    assert box.after(0) == ["b"], "what all have got is gone"
    box.outbox.delivered("webhook", second.id)
    assert box.state()["webhook"] == (0, None, 0)
    assert box.after(0) == []


def test_a_target_that_is_further_does_not_go_back(box: Box) -> None:
    box.outbox.join("command")
    box.record("a", "b")
    box.outbox.delivered("command", 2)
    box.outbox.delivered("command", 1)
    assert box.state()["command"][0] == 0


def test_a_new_target_hears_of_what_comes_then(box: Box) -> None:
    box.outbox.join("command")
    box.record("before")
    assert box.outbox.join("webhook") == 1
    box.record("then")
    assert box.state() == {"command": (2, 1000.0, 0), "webhook": (1, 1000.0, 0)}


def test_a_target_that_comes_back_is_where_it_was(box: Box) -> None:
    box.outbox.join("command")
    box.record("a", "b")
    box.outbox.delivered("command", 1)
    assert box.outbox.join("command") == 1


def test_a_target_that_leaves_keeps_nothing(box: Box) -> None:
    box.outbox.join("command")
    box.outbox.join("webhook")
    box.record("a", "b")
    box.outbox.delivered("webhook", 1)
    box.outbox.leave("command")
    assert box.state() == {"webhook": (1, 1000.0, 0)}
    assert box.after(0) == ["b"]
    box.outbox.leave("webhook")
    assert not box.outbox.wanted
    assert box.after(0) == []


def test_events_outlive_the_daemon(tmp_path: Path) -> None:
    before = Box(tmp_path)
    before.outbox.join("webhook")
    before.record("a", "b", "c")
    before.outbox.delivered("webhook", 1)
    before.writer.close()
    after = Box(tmp_path)
    assert after.outbox.join("webhook") == 1
    assert after.after(1) == ["b", "c"]
    after.writer.close()


def test_no_number_is_used_twice_though_all_events_are_gone(box: Box) -> None:
    box.outbox.join("command")
    box.record("a")
    box.outbox.delivered("command", 1)
    box.record("b")
    assert [event.id for event in box.outbox.after(0, 10)] == [2]


def test_too_many_events_drop_the_oldest_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 4)
    box = Box(tmp_path, limit=10)
    box.outbox.join("command")
    box.outbox.join("webhook")
    box.record(*map(str, range(1, 21)))
    box.outbox.delivered("command", 18)
    box.record(*map(str, range(21, 41)))
    box.settle()
    assert box.after(0) == [str(number) for number in range(31, 41)]
    assert box.state() == {"command": (10, 1000.0, 10 + 12), "webhook": (10, 1000.0, 30)}
    box.writer.close()


# -- with the ends of jobs ---------------------------------------------------------------------------------------------


@pytest.fixture
def jobs(box: Box) -> JobTable:
    table = JobTable(box.writer, Readers(box.path), clock=lambda: 1000.0, outbox=box.outbox)
    table.register("inbox", "/in", "/out")
    return table


def test_an_end_and_its_event_are_one_transaction(box: Box, jobs: JobTable) -> None:
    box.outbox.join("command")
    good, bad = enqueue(jobs, "a"), enqueue(jobs, "b")
    commits = box.writer.commits
    jobs.complete(good, CONVERSION, "/out/a.md", dispose=False)
    jobs.fail(bad, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    assert box.writer.commits == commits + 2
    assert box.heard == 2
    completed, failed = box.after(0)
    assert '"kind": "completed"' in completed and '"kind": "failed"' in failed


def test_an_end_that_was_none_has_no_event(box: Box, jobs: JobTable) -> None:
    box.outbox.join("command")
    job = enqueue(jobs)
    jobs.complete(job, CONVERSION, "/out/a.md", dispose=False)
    assert not jobs.complete(job, CONVERSION, "/out/a.md", dispose=False)
    assert not jobs.fail(job, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    assert len(box.after(0)) == box.heard == 1


def test_a_lost_transaction_loses_both(box: Box, jobs: JobTable, monkeypatch: pytest.MonkeyPatch) -> None:
    box.outbox.join("command")
    job = enqueue(jobs)

    def broken(db: Connection, payload: str | None) -> None:
        Outbox.record(box.outbox, db, payload)
        raise RuntimeError("the power fails")

    monkeypatch.setattr(box.outbox, "record", broken)
    with pytest.raises(RuntimeError):
        jobs.complete(job, CONVERSION, "/out/a.md", dispose=False)
    assert box.after(0) == []
    monkeypatch.undo()
    assert jobs.complete(job, CONVERSION, "/out/a.md", dispose=False)
    assert len(box.after(0)) == 1


def test_nobody_wants_to_know_so_nothing_is_made(box: Box, jobs: JobTable) -> None:
    jobs.complete(enqueue(jobs), CONVERSION, "/out/a.md", dispose=False)
    box.outbox.join("command")
    assert box.after(0) == []
    assert box.heard == 0

"""Batches in the job table: their counters, when they are complete, what opens them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import batches
from daemon.db import Connection, Row, reader
from daemon.errors import DocumentError, Kind
from daemon.jobs import Handed, Receipt
from daemon.model import Candidate, State
from daemon.naming import batch_of
from tests.batching import CONVERSION, Bench

MARKDOWN_SHA256 = hashlib.sha256(CONVERSION.markdown).hexdigest()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(str(tmp_path / "convertd.db"))
    yield bench
    bench.writer.close()


def test_a_first_level_folder_is_a_batch(bench: Bench) -> None:
    jobs = [bench.add("x/a"), bench.add("x/deep/er/b"), bench.add("y/a"), bench.add("alone")]
    assert [job.batch for job in jobs] == ["x", "x", "y", None]
    assert [job.batch for job, _ in bench.jobs.pending("inbox", 9)] == ["x", "x", "y", None]
    assert (bench.counts("x"), bench.counts("y")) == ({"pending": 2}, {"pending": 1})


def test_counters_follow_every_change(bench: Bench) -> None:
    bench.done("x/a")
    bench.fail("x/b")
    waiting, ended, running = bench.add("x/c"), bench.add("x/d"), bench.add("x/e")
    bench.jobs.cancel([ended.id])
    bench.jobs.start(running)
    bench.jobs.retry([])  # durable, so all before it is written too
    assert bench.counts() == {"completed": 1, "failed": 1, "pending": 1, "cancelled": 1, "processing": 1}
    assert bench.batch().unfinished == 2
    bench.jobs.fold(waiting)
    bench.jobs.release(running)
    assert bench.counts() == {"completed": 1, "failed": 1, "cancelled": 1, "pending": 1}
    assert bench.batch().unfinished == 1


def test_it_is_complete_when_all_is_final_and_nothing_new_came_for_a_while(bench: Bench) -> None:
    job = bench.add("x/a")
    bench.later()
    assert bench.due() == []
    assert bench.batch().why_open(bench.now) == "1 of its jobs is not final"
    bench.jobs.start(job)
    bench.jobs.complete(job, CONVERSION, "", dispose=False)
    assert bench.due() == ["x"]
    bench.done("x/b")
    bench.later(59)
    assert bench.due() == []
    assert "59 s ago" in (bench.batch().why_open(bench.now) or "")
    bench.later(1)
    assert bench.due() == ["x"]
    assert bench.batch().why_open(bench.now) is None


def test_what_comes_later_opens_it_again_and_so_does_a_retry(bench: Bench) -> None:
    bench.fail("x/a")
    bench.later()
    assert bench.batches.complete(bench.batch())
    assert (bench.due(), bench.batch().completed_at) == ([], bench.now)
    bench.done("x/b")
    assert bench.batch().completed_at is None
    bench.later()
    assert bench.batches.complete(bench.batch())
    (job,), _ = bench.jobs.retry([1])
    assert (bench.due(), bench.batch().completed_at) == ([], None)
    bench.jobs.start(job)
    bench.jobs.complete(job, CONVERSION, "", dispose=False)
    assert bench.due() == ["x"], "nothing new came: nobody has to wait again"


def test_it_is_not_completed_where_it_changed_since_it_was_read(bench: Bench) -> None:
    def never(db: Connection) -> None:
        raise AssertionError

    bench.fail("x/a")
    bench.later()
    (seen,) = bench.batches.due("inbox", 1)
    bench.jobs.retry([1])
    assert not bench.batches.complete(seen, never)
    bench.jobs.start(job := bench.jobs.pending("inbox", 1)[0][0])
    bench.jobs.complete(job, CONVERSION, "", dispose=False)
    assert not bench.batches.complete(seen, never), "final again, but not as it was seen"
    assert bench.batches.complete(bench.batch())
    assert not bench.batches.complete(bench.batch(), never)


def test_news_are_recorded_with_the_completion_or_not_at_all(bench: Bench) -> None:
    bench.done("x/a")
    bench.later()

    def breaks(db: Connection) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        bench.batches.complete(bench.batch(), breaks)
    assert bench.batch().completed_at is None

    def record(db: Connection) -> None:
        db.execute("UPDATE watches SET sink = x'00'")

    assert bench.batches.complete(bench.batch(), record)
    with reader(bench.database) as db:
        assert list(db.execute("SELECT sink FROM watches")) == [(b"\0",)]


def test_a_clock_that_was_put_back_holds_nothing_up(bench: Bench) -> None:
    bench.done("x/a")
    bench.later(-10_000)
    assert bench.due() == ["x"]


def test_documents_come_once_with_their_newest_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PAGE", 2)
    bench.add("x/old", "1")
    for name in ("a", "b", "c"):
        bench.done(f"x/{name}")
    bench.fail("x/bad")
    bench.done("x/old", "2")
    bench.done("y/other")
    found = list(batches.documents(bench.batches.rows, bench.batch()))
    assert [(document.source, document.state) for document in found] == [
        (b"x/a", "completed"),
        (b"x/b", "completed"),
        (b"x/c", "completed"),
        (b"x/bad", "failed"),
        (b"x/old", "completed"),
    ]
    facts = found[0].facts()
    assert facts["sha256"] == CONVERSION.sha256
    assert (facts["markdown_sha256"], facts["output"]) == (MARKDOWN_SHA256, "/out/x/a.md")
    assert [document.error_kind for document in batches.failures(bench.batches.rows, bench.batch(), 9)] == ["corrupt"]


def test_names_that_are_not_utf8_are_told_in_full(bench: Bench) -> None:
    bench.jobs.enqueue("inbox", [Candidate(b"x/\xff", "1", 1)], 5, batch_of)
    (document,) = batches.documents(bench.batches.rows, bench.batch())
    assert (document.facts()["source"], document.facts()["source_base64"]) == ("x/�", "eC//")


def test_watches_may_have_batches_of_one_name(bench: Bench) -> None:
    bench.jobs.register("second", "/in2", "/out2")
    bench.add("x/a")
    bench.add("x/a", watch="second")
    assert [batch.watch for batch in batches.named(bench.batches.rows, "x", None)] == ["inbox", "second"]
    assert bench.batch("x", "second").watch == "second"
    assert batches.named(bench.batches.rows, "x", "third") == []


def test_a_batch_goes_with_its_last_job(bench: Bench) -> None:
    bench.done("x/a")
    bench.fail("x/b")
    bench.later()
    assert bench.jobs.history.prune(bench.now, keep_failed=True).jobs == 1
    assert bench.counts() == {"failed": 1}
    assert bench.jobs.history.prune(bench.now, keep_failed=False).jobs == 1
    assert batches.named(bench.batches.rows, "x", None) == []
    with reader(bench.database) as db:
        assert list(db.execute("SELECT * FROM batch_counts")) == []


def test_one_that_lost_all_its_jobs_otherwise_can_be_dropped(bench: Bench) -> None:
    job = bench.add("x/a")
    bench.batches.drop(bench.batch())
    assert bench.counts() == {"pending": 1}, "not while it has any"
    bench.jobs.fold(job)
    bench.batches.drop(bench.batch())
    assert batches.named(bench.batches.rows, "x", None) == []


# -- documents that are handed in --------------------------------------------------------------------------------------


def handed(name: str = "a.pdf", version: str = "1", location: str = "spooled") -> Handed:
    return Handed(f"submitted/x/{name}".encode(), version, 10, location.encode())


def test_what_is_handed_in_is_a_job_of_its_batch(bench: Bench) -> None:
    (receipt,) = bench.jobs.submit("inbox", "x", [handed()], 7)
    assert receipt.new is not None
    ((job, _),) = bench.jobs.pending("inbox", 9)
    assert job == receipt.new
    assert (job.batch, bool(job.submitted), job.location, job.priority) == ("x", True, b"spooled", 7)
    assert bench.jobs.history.spooled([b"spooled", b"other"]) == {b"spooled"}
    assert bench.jobs.history.orphans("inbox", b"") == [], "nobody is to look for it in the source"


def test_the_same_bytes_are_the_same_job_whatever_became_of_it(bench: Bench) -> None:
    (first,) = bench.jobs.submit("inbox", "x", [handed()], 5)
    again = bench.jobs.submit("inbox", "x", [handed(location="2"), handed(location="3")], 5)
    assert again == [Receipt(first.job_id, "pending")] * 2
    assert first.new is not None
    bench.jobs.start(first.new)
    bench.jobs.fail(first.new, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    assert bench.jobs.submit("inbox", "x", [handed()], 5) == [Receipt(first.job_id, "failed")]
    bench.jobs.retry([first.job_id])
    bench.jobs.complete(first.new, CONVERSION, "", dispose=True)
    assert bench.jobs.submit("inbox", "x", [handed()], 5) == [Receipt(first.job_id, "completed")]
    assert bench.counts() == {"completed": 1}


@pytest.mark.parametrize("end", [None, "completed"])
def test_another_document_of_the_same_name_is_refused(bench: Bench, end: str | None) -> None:
    (first,) = bench.jobs.submit("inbox", "x", [handed()], 5)
    if end:
        assert first.new is not None
        bench.jobs.start(first.new)
        bench.jobs.complete(first.new, CONVERSION, "", dispose=True)
    (second,) = bench.jobs.submit("inbox", "x", [handed(version="2")], 5)
    assert second.new is None
    assert f"job {first.job_id}" in second.refused
    assert sum(bench.counts().values()) == 1


@pytest.mark.parametrize("end", [State.FAILED, State.CANCELLED, State.VANISHED])
def test_one_without_a_result_may_be_replaced(bench: Bench, end: State) -> None:
    (first,) = bench.jobs.submit("inbox", "x", [handed()], 5)
    assert first.new is not None
    bench.jobs.start(first.new)
    bench.jobs.end(first.new, end)
    (second,) = bench.jobs.submit("inbox", "x", [handed(version="2")], 5)
    assert second.new is not None
    (document,) = batches.documents(bench.batches.rows, bench.batch())
    assert document.job == second.job_id


def test_a_document_of_the_watchs_own_source_is_left_alone(bench: Bench) -> None:
    bench.add("submitted/x/a.pdf")
    (receipt,) = bench.jobs.submit("inbox", "x", [handed()], 5)
    assert receipt.new is None
    assert "in its own source" in receipt.refused


def test_a_copy_is_known_until_it_is_disposed_of_and_then_there_is_nothing_to_retry(bench: Bench) -> None:
    (receipt,) = bench.jobs.submit("inbox", "x", [handed()], 5)
    assert receipt.new is not None
    bench.jobs.start(receipt.new)
    bench.jobs.complete(receipt.new, CONVERSION, "", dispose=True)
    assert [(job.id, job.location) for job, _ in bench.jobs.disposals.due()] == [(receipt.job_id, b"spooled")]
    bench.jobs.disposals.done(receipt.new, None)
    assert bench.jobs.history.spooled([b"spooled"]) == set()
    retried, (refused,) = bench.jobs.retry([receipt.job_id])
    assert retried == []
    assert "submit it to another batch" in refused


def test_a_pruned_job_names_its_copy(bench: Bench) -> None:
    (receipt,) = bench.jobs.submit("inbox", "x", [handed()], 5)
    assert receipt.new is not None
    bench.jobs.start(receipt.new)
    bench.jobs.fail(receipt.new, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    bench.later()
    assert bench.jobs.history.prune(bench.now, keep_failed=True).spooled == []
    assert bench.jobs.history.prune(bench.now, keep_failed=False).spooled == [b"spooled"]


def test_questions_use_their_indexes(bench: Bench) -> None:
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def rows(sql: str, bindings: tuple[Any, ...]) -> list[Row]:
        asked.append((sql, bindings))
        return bench.batches.rows(sql, bindings)

    bench.done("x/a")
    list(batches.documents(rows, bench.batch()))
    batches.failures(rows, bench.batch(), 9)
    batches.counts(rows, bench.batch())
    rows("SELECT location FROM jobs WHERE submitted = 1 AND location IN (?, ?)", (b"a", b"b"))
    rows("SELECT 1 FROM jobs WHERE batch = ?", (1,))
    with reader(bench.database) as db:
        plans = [" / ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", found)) for sql, found in asked]
    newer = "SEARCH newer USING INDEX jobs_by_source (watch=? AND source=? AND "
    for plan, parts in zip(
        plans,
        [
            ["jobs USING INDEX jobs_in_batch (batch=? AND id>?)", newer],
            ["jobs USING INDEX jobs_in_batch (batch=? AND id>?)", newer],
            ["jobs USING INDEX jobs_by_batch (batch=? AND state=?)", newer],
            ["batch_counts USING PRIMARY KEY (batch=?)"],
            ["INDEX jobs_spooled (location=?)"],
            ["jobs USING COVERING INDEX jobs_"],
        ],
        strict=True,
    ):
        assert "TEMP B-TREE" not in plan
        for part in parts:
            assert part in plan
    with reader(bench.database) as db:
        sql = "SELECT * FROM batches WHERE watch = 1 AND completed_at IS NULL AND unfinished = 0"
        assert "batches_due" in " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}"))

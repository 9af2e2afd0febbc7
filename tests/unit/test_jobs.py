"""The job table: versions, states, counters, recovery, retry and prune, on a real database."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon import queries
from daemon.db import Readers, Row, Writer, reader
from daemon.errors import DocumentError, Kind, TransientError
from daemon.jobs import JobTable
from daemon.jobs.history import History
from daemon.jobs.rows import AT_ONCE
from daemon.model import Candidate, Conversion, Job, Stage, State

CONVERSION = Conversion(b"# hi", "ab" * 32, "application/pdf", "liteparse", "1.0", pages=3)


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "convertd.db")


@pytest.fixture
def jobs(database: str) -> Iterator[JobTable]:
    writer = Writer(database)
    writer.start()
    table = JobTable(writer, Readers(database), clock=lambda: 1000.0)
    table.register("inbox", "/in", "/out")
    yield table
    writer.close()


def candidate(source: str = "a.pdf", version: str = "1") -> Candidate:
    return Candidate(source.encode(), version, 10)


def enqueue(jobs: JobTable, source: str = "a.pdf", version: str = "1") -> Job:
    new, _ = jobs.enqueue("inbox", [candidate(source, version)], 5)
    return new[0]


def state(database: str, job: Job) -> str:
    with reader(database) as db:
        record = queries.job(db, job.id)
    assert record is not None
    return str(record["state"])


def counts(database: str) -> dict[str, int]:
    with reader(database) as db:
        return {key: value for key, value in queries.counts(db)["inbox"].items() if value}


def test_the_same_version_is_queued_once(jobs: JobTable) -> None:
    enqueue(jobs)
    assert jobs.enqueue("inbox", [candidate()], 5) == ([], [])
    assert jobs.known.unknown("inbox", [candidate(), candidate(version="2"), candidate("b.pdf")]) == [
        candidate(version="2"),
        candidate("b.pdf"),
    ]


class CountingReaders(Readers):
    """Counts the queries."""

    queries = 0

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Row]:
        self.queries += 1
        return super().rows(sql, bindings)


Table = tuple[JobTable, CountingReaders, dict[bytes, str]]


@pytest.fixture
def large(database: str) -> Iterator[Table]:
    """A table with many documents, and what it should know of them. Another watch has seen other versions."""
    writer, readers = Writer(database), CountingReaders(database)
    writer.start()
    table = JobTable(writer, readers)
    for watch in ("before", "inbox", "behind"):
        table.register(watch, "/in", "/out")
    known = {b"%02d/%04d \xff.pdf" % (number % 40, number): f'"{number}"' for number in range(4000)}
    for watch in ("before", "behind"):
        table.enqueue(watch, [Candidate(path, "other", 1) for path in known][::3], 5)
    table.enqueue("inbox", [Candidate(path, version, 1) for path, version in known.items()], 5)
    yield table, readers, known
    writer.close()


def naive(known: dict[bytes, str], candidates: Sequence[Candidate]) -> list[Candidate]:
    return [found for found in candidates if known.get(found.source) != found.version]


def test_a_page_of_neighbours_takes_one_query_in_whatever_order_they_come(large: Table) -> None:
    table, readers, known = large
    paths = sorted(known)
    assert table.known.unknown("inbox", []) == []
    for start in (0, 777, 3000):
        page = [Candidate(path, known[path], 1) for path in paths[start : start + 1000]]
        random.Random(start).shuffle(page)
        page[500] = Candidate(page[500].source, "changed", 1)
        page.insert(10, Candidate(page[20].source + b"~", "1", 1))
        asked = readers.queries
        assert table.known.unknown("inbox", page) == [page[10], page[501]]
        assert readers.queries - asked == 1


def test_a_page_from_all_over_the_table_is_looked_up_path_by_path(large: Table) -> None:
    table, readers, known = large
    scattered = [Candidate(path, version, 1) for path, version in known.items()]
    page = random.Random(1).sample(scattered, 1900)
    assert table.known.unknown("inbox", page) == []
    apart = [scattered[0], *sorted(page, key=lambda one: one.source)[:20], scattered[-1]]
    asked = readers.queries
    assert table.known.unknown("inbox", apart) == []
    assert readers.queries - asked == 2, "a look at what lies between them, and then one for them all"


def test_pages_of_every_kind_are_judged_as_one_by_one(large: Table) -> None:
    table, _, known = large
    generator = random.Random(2)
    paths = sorted(known)

    def page() -> list[Candidate]:
        size = generator.choice([1, 2, 15, 16, 17, 40, 300, 899, 900, 901, 1000, 2000])
        start = generator.randrange(len(paths))
        near = paths[start : start + size]
        drawn = generator.choice([near, generator.sample(near, len(near)), generator.sample(paths, size)])
        found = [Candidate(path, known[path], 1) for path in drawn]
        for path in generator.choices(drawn, k=generator.choice([0, 0, 3, 100])):
            other_version = Candidate(path, generator.choice(["", "x", known[path]]), 1)
            other_path = Candidate(path + generator.choice([b"", b"~", b"\xff"]), known[path], 1)
            found.insert(generator.randrange(len(found) + 1), generator.choice([other_version, other_path]))
        return found

    for _ in range(150):
        candidates = page()
        assert table.known.unknown("inbox", candidates) == naive(known, candidates)


def test_a_watch_that_is_not_known_yet_has_seen_nothing(jobs: JobTable) -> None:
    enqueue(jobs)
    page = [candidate(str(number)) for number in range(100)]
    assert jobs.known.unknown("later", [candidate()]) == [candidate()]
    assert jobs.known.unknown("later", page) == page
    jobs.register("later", "/elsewhere", "/out")
    assert jobs.known.unknown("later", [candidate()]) == [candidate()]
    jobs.enqueue("later", page, 5)
    assert jobs.known.unknown("later", [*page, candidate()]) == [candidate()]
    assert jobs.known.unknown("inbox", [*page, candidate()]) == page


def test_a_newer_version_supersedes_a_pending_older_one(jobs: JobTable, database: str) -> None:
    old = enqueue(jobs)
    new, superseded = jobs.enqueue("inbox", [candidate(version="2")], 5)
    assert superseded == [old.id]
    assert state(database, old) == State.SUPERSEDED
    assert jobs.is_current(new[0]) and not jobs.is_current(old)


@pytest.mark.parametrize("count", [1, 2, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE + 5])
def test_jobs_that_are_queued_together_have_the_rows_that_their_ids_say(jobs: JobTable, count: int) -> None:
    def batch_of(source: bytes) -> str | None:
        return "even" if int(source) % 2 == 0 else None

    jobs.enqueue("inbox", [candidate(str(number)) for number in range(0, count, 3)], 5, batch_of)
    page = [candidate(str(number), version=str(number % 5)) for number in range(count)]
    new, superseded = jobs.enqueue("inbox", page, 4, batch_of)
    assert [job.source for job in new] == [one.source for one in page if int(one.source) % 3 or one.version != "1"]
    assert len(superseded) == sum(not int(job.source) % 3 for job in new)
    rows = {job.id: job for job, _ in jobs.pending("inbox", 10 * count)}
    assert [rows[job.id] for job in new] == new
    assert jobs.enqueue("inbox", page, 4, batch_of) == ([], [])


def test_of_the_versions_of_a_document_in_one_page_the_last_one_stays(jobs: JobTable, database: str) -> None:
    page = [candidate(version="1"), candidate("b.pdf"), candidate(version="1"), candidate(version="2")]
    (first, other, last), superseded = jobs.enqueue("inbox", page, 5)
    assert superseded == [first.id]
    assert [state(database, job) for job in (first, other, last)] == [State.SUPERSEDED, State.PENDING, State.PENDING]
    assert jobs.is_current(last)
    assert jobs.enqueue("inbox", page[-1:], 5) == ([], [])
    assert counts(database) == {"pending": 2, "superseded": 1}


def test_a_running_job_is_not_superseded_until_it_ends(jobs: JobTable, database: str) -> None:
    old = enqueue(jobs)
    jobs.start(old)
    jobs.enqueue("inbox", [candidate(version="2")], 5)
    assert state(database, old) == State.PROCESSING
    assert not jobs.is_current(old)


def test_counters_follow_every_change(jobs: JobTable, database: str) -> None:
    done, bad, waiting = enqueue(jobs, "a"), enqueue(jobs, "b"), enqueue(jobs, "c")
    jobs.start(done)
    jobs.stage(done, Stage.CONVERT)
    assert jobs.complete(done, CONVERSION, "/out/a.md", dispose=False)
    jobs.start(bad)
    assert jobs.fail(bad, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    jobs.start(waiting)
    assert jobs.retry([]) == ([], []), "durable, so all before it is written too"
    assert counts(database) == {"completed": 1, "failed": 1, "processing": 1}
    assert jobs.history.prune(2000.0, keep_failed=True)[1] == 1
    assert counts(database) == {"failed": 1, "processing": 1}


def test_a_job_ended_by_somebody_else_is_not_completed(jobs: JobTable, database: str) -> None:
    job = enqueue(jobs)
    jobs.start(job)
    assert jobs.end(job, State.CANCELLED)
    assert not jobs.complete(job, CONVERSION, "/out/a.md", dispose=False)
    assert state(database, job) == State.CANCELLED


def test_a_conversion_is_remembered_by_its_digest(jobs: JobTable) -> None:
    first = enqueue(jobs)
    jobs.start(first)
    jobs.complete(first, CONVERSION, "/out/a.md", dispose=False)
    second = enqueue(jobs, version="2")
    assert (second.previous_version, jobs.converted_before(second)) == ("1", CONVERSION.sha256)
    jobs.start(second)
    assert jobs.fold(second)
    assert jobs.known.unknown("inbox", [candidate(version="2")]) == []
    assert enqueue(jobs, version="3").previous_version == "2"


def test_after_a_failure_no_digest_is_trusted(jobs: JobTable) -> None:
    first = enqueue(jobs)
    jobs.start(first)
    jobs.complete(first, CONVERSION, "/out/a.md", dispose=False)
    second = enqueue(jobs, version="2")
    jobs.start(second)
    jobs.fail(second, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    assert enqueue(jobs, version="3").previous_version is None
    assert jobs.has_output(second)


def test_recovery_counts_only_conversions_as_interrupted(jobs: JobTable) -> None:
    fetching, converting = enqueue(jobs, "a"), enqueue(jobs, "b")
    jobs.start(fetching)
    jobs.start(converting)
    jobs.stage(converting, Stage.CONVERT)
    assert jobs.recover() == 2
    assert [(job.source, job.interruptions) for job, _ in jobs.pending("inbox", 10)] == [(b"a", 0), (b"b", 1)]


def test_a_stop_by_signal_counts_no_interruption(jobs: JobTable) -> None:
    job = enqueue(jobs)
    jobs.start(job)
    jobs.stage(job, Stage.CONVERT)
    jobs.release_all()
    assert [(job.source, job.interruptions) for job, _ in jobs.pending("inbox", 10)] == [(b"a.pdf", 0)]


def test_back_off_counts_the_attempt_and_release_does_not(jobs: JobTable) -> None:
    job = enqueue(jobs)
    jobs.start(job)
    jobs.release(job)
    jobs.start(job)
    jobs.back_off(job, TransientError(Kind.UNREADABLE, "io"), not_before=1234.0)
    ((again, not_before),) = jobs.pending("inbox", 10)
    assert (again.attempts, not_before) == (1, 1234.0)


def test_pending_comes_by_priority_then_age(jobs: JobTable) -> None:
    jobs.enqueue("inbox", [candidate("low")], 1)
    jobs.enqueue("inbox", [candidate("old")], 5)
    jobs.enqueue("inbox", [candidate("new")], 5)
    assert [job.source for job, _ in jobs.pending("inbox", 2)] == [b"old", b"new"]


def test_a_disposed_source_is_forgotten_and_its_place_known(jobs: JobTable) -> None:
    job = enqueue(jobs)
    jobs.start(job)
    jobs.complete(job, CONVERSION, "/out/a.md", dispose=True)
    assert [(due.id, how) for due, how in jobs.disposals.due()] == [(job.id, "success")]
    jobs.disposals.done(job, b"/done/a.pdf")
    assert jobs.disposals.due() == []
    assert jobs.known.unknown("inbox", [candidate()]) == [candidate()]
    (retried,), _ = jobs.retry([job.id])
    assert retried.location == b"/done/a.pdf"


def test_disposal_of_an_old_version_does_not_forget_a_newer_one(jobs: JobTable) -> None:
    job = enqueue(jobs)
    jobs.start(job)
    jobs.complete(job, CONVERSION, "/out/a.md", dispose=True)
    enqueue(jobs, version="2")
    jobs.disposals.done(job, None)
    assert jobs.known.unknown("inbox", [candidate(version="2")]) == []


def test_a_result_whose_source_was_deleted_is_not_given_up_for_a_retry(jobs: JobTable) -> None:
    job = enqueue(jobs)
    jobs.start(job)
    jobs.complete(job, CONVERSION, "/out/a.md", dispose=True)
    jobs.disposals.done(job, None)
    retried, (refused,) = jobs.retry([job.id])
    assert (retried, "source was deleted" in refused) == ([], True)


def test_retry_refuses_what_makes_no_sense(jobs: JobTable) -> None:
    old = enqueue(jobs)
    jobs.start(old)
    jobs.fail(old, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    waiting = enqueue(jobs, version="2")
    retried, refused = jobs.retry([old.id, waiting.id, 999])
    assert retried == []
    assert len(refused) == 3
    assert "older version" in refused[0] and "pending" in refused[1] and "does not exist" in refused[2]


def test_prune_keeps_what_prevents_a_second_conversion(jobs: JobTable) -> None:
    job = enqueue(jobs)
    jobs.start(job)
    jobs.complete(job, CONVERSION, "/out/a.md", dispose=False)
    assert jobs.history.orphans("inbox", b"") == []
    assert jobs.history.prune(2000.0, keep_failed=False)[1] == 1
    assert jobs.known.unknown("inbox", [candidate()]) == []
    assert jobs.history.orphans("inbox", b"") == [b"a.pdf"]
    jobs.history.forget("inbox", [b"a.pdf"])
    assert jobs.known.unknown("inbox", [candidate()]) == [candidate()]


def test_prune_keeps_recent_open_and_undisposed_jobs(jobs: JobTable) -> None:
    recent, undisposed = enqueue(jobs, "a"), enqueue(jobs, "b")
    enqueue(jobs, "c")
    jobs.start(recent)
    jobs.complete(recent, CONVERSION, "", dispose=False)
    assert jobs.history.prune(1000.0, keep_failed=False)[1] == 0
    jobs.start(undisposed)
    jobs.complete(undisposed, CONVERSION, "", dispose=True)
    assert jobs.history.prune(2000.0, keep_failed=False)[1] == 1


def test_the_hot_queries_use_their_indexes(jobs: JobTable, database: str) -> None:
    plans = {
        "SELECT * FROM jobs WHERE state = 'pending' AND watch = 1 "
        "ORDER BY discovered_at - 600.0 * priority, id LIMIT 9": "jobs_pending",
        "SELECT id FROM jobs WHERE batch = 1 AND state = 'failed' ORDER BY id": "jobs_by_batch",
        "SELECT id FROM jobs WHERE state = 'failed' AND watch = 1 ORDER BY id DESC LIMIT 9": "jobs_by_state",
        "SELECT id FROM jobs WHERE watch = 1 ORDER BY id DESC LIMIT 9": "jobs_by_watch",
        "SELECT id FROM jobs WHERE disposal IS NOT NULL ORDER BY id": "jobs_disposal",
        "UPDATE jobs SET stage = NULL WHERE state = 'processing'": "jobs_by_state",
        "SELECT 1 FROM jobs WHERE watch = 1 AND source = x'61' AND id > 3": "jobs_by_source",
    }
    writer_plans = {}
    with reader(database) as db:
        for sql in plans:
            writer_plans[sql] = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}"))
    for sql, index in plans.items():
        assert index in writer_plans[sql], writer_plans[sql]
        assert "TEMP B-TREE" not in writer_plans[sql]


def test_a_retry_forgets_the_digest_so_that_it_converts(jobs: JobTable) -> None:
    job = enqueue(jobs)
    jobs.start(job)
    jobs.complete(job, CONVERSION, "/out/a.md", dispose=False)
    (retried,), _ = jobs.retry([job.id])
    assert (retried.previous_version, jobs.converted_before(retried)) == (None, None)


@pytest.mark.parametrize("given_up", [JobTable.recover, JobTable.release_all])
def test_after_a_delivery_that_did_not_come_to_its_end_no_digest_is_trusted(
    given_up: Callable[[JobTable], object], jobs: JobTable
) -> None:
    """Because the daemon died, or at a stop."""
    first = enqueue(jobs)
    jobs.start(first)
    jobs.complete(first, CONVERSION, "/out/a.md", dispose=False)
    second = enqueue(jobs, version="2")
    jobs.start(second)
    jobs.stage(second, Stage.DELIVER)
    given_up(jobs)
    third = enqueue(jobs, version="3")
    assert (third.previous_version, jobs.converted_before(third)) == (None, None)


def test_prune_walks_past_what_must_stay(jobs: JobTable, database: str) -> None:
    for number in range(20):
        job = enqueue(jobs, f"{number}")
        jobs.start(job)
        if number % 2:
            jobs.fail(job, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
        else:
            jobs.complete(job, CONVERSION, "", dispose=False)
    after, total = 0, 0
    for _ in range(20):
        after, dropped, _ = jobs.history.prune(2000.0, keep_failed=True, after=after, limit=3)
        total += dropped
        if not after:
            break
    assert (after, total) == (0, 10)
    assert counts(database) == {"failed": 10}


def test_prune_keeps_the_newest_beside_an_older_one_that_stays_and_none_between(jobs: JobTable, database: str) -> None:
    failed, *between, newest = [through(jobs, version=str(number)) for number in range(1, 6)]
    assert jobs.history.prune(2000.0, keep_failed=True)[:2] == (between[-1].id, len(between))
    with reader(database) as db:
        assert [row["id"] for row in queries.history(db, "inbox", b"a.pdf")] == [newest.id, failed.id]
    assert jobs.history.prune(2000.0, keep_failed=True)[:2] == (0, 0)


def through(jobs: JobTable, version: str) -> Job:
    """A version that has come to its end: the first one failed."""
    job = enqueue(jobs, version=version)
    jobs.start(job)
    if version == "1":
        jobs.fail(job, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    else:
        jobs.complete(job, CONVERSION, "/out/a.md", dispose=False)
    return job


class ExplainingReaders(Readers):
    """Finds nothing, and keeps how it would be searched for."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.plan: list[str] = []

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Row]:
        self.plan += [row[3] for row in super().rows(f"EXPLAIN QUERY PLAN {sql}", bindings)]
        return []


def test_prune_walks_the_table_once_and_asks_an_index_for_the_other_jobs(jobs: JobTable, database: str) -> None:
    readers = ExplainingReaders(database)
    History(jobs.history._writer, readers).prune(2000.0, keep_failed=True)
    table, *others = [step for step in readers.plan if step.startswith(("SEARCH", "SCAN"))]
    assert "INTEGER PRIMARY KEY (rowid>?)" in table
    assert len(others) == 2 and all("jobs_by_source (watch=? AND source=? AND id" in step for step in others), others


def test_retry_failed_means_only_documents_that_have_not_come_anew(jobs: JobTable, database: str) -> None:
    old, other = enqueue(jobs, "a"), enqueue(jobs, "b")
    for job in (old, other):
        jobs.start(job)
        jobs.fail(job, DocumentError(Kind.CORRUPT, "no"), attempts=1, dispose=False)
    enqueue(jobs, "a", version="2")
    with reader(database) as db:
        assert queries.failed_ids(db, None) == [other.id]
        assert queries.failed_ids(db, "nobody") == []


def test_listing_is_newest_first_over_all_watches(jobs: JobTable, database: str) -> None:
    jobs.register("second", "/in2", "/out2")
    first = enqueue(jobs, "a")
    jobs.enqueue("second", [candidate("b")], 5)
    last = enqueue(jobs, "c")
    with reader(database) as db:
        assert [row["id"] for row in queries.listing(db, state=None, watch=None, limit=2)] == [last.id, last.id - 1]
        assert [row["id"] for row in queries.listing(db, state="pending", watch="inbox", limit=9)] == [
            last.id,
            first.id,
        ]
        assert queries.oldest_pending(db) == 1000.0

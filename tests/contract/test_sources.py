"""What every source must do, whatever it reads from. A new source adds its bench to BENCHES."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from daemon.buckets import Prefix
from daemon.errors import EnvironmentProblem, NotYet, SourceChanged, SourceVanished
from daemon.model import Candidate, Disposal, Job
from daemon.payload import Payloads
from daemon.s3.clients import Clients
from daemon.s3.objects import server_age_seconds
from daemon.sources import REGISTRY
from daemon.sources.base import Ledger, Source, Surroundings, Watcher
from daemon.sources.folder import FolderSource
from daemon.sources.s3 import S3Source
from daemon.sources.sqs import SqsSource
from tests.servers import Bucket, Queue, created_event, queue_for, s3_settings
from tests.watching import Clock, Everything, job_for, watched


class Bench(Protocol):
    """A source with a way to change what it reads."""

    source: Source
    clock: Clock

    def put(self, name: str, content: bytes) -> None: ...
    def remove(self, name: str) -> None: ...
    def read(self, name: str) -> bytes | None: ...
    def break_down(self) -> None: ...
    def moved_to(self) -> str: ...


class FolderBench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "inbox"
        self.folder.mkdir()
        self.target = folder / "done"
        self.clock = Clock(10)
        self.source: Source = FolderSource(
            str(self.folder), Everything(), clock=self.clock.time, monotonic=self.clock.monotonic
        )

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def read(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.exists() else None

    def break_down(self) -> None:
        self.folder.rename(self.folder.parent / "away")

    def moved_to(self) -> str:
        return str(self.target)


class BucketBench:
    """What is the same for all sources that read from the prefix in/ of a bucket."""

    source: Source

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.bucket = bucket
        self.clock = Clock(10)
        self.place = Prefix(bucket.name, "in/")
        self.settings = s3_settings(bucket.server, folder)
        self.surroundings = Surroundings(Payloads(str(folder), 1 << 20, 1 << 10), Clients(4))

    def age_seconds(self, reply: Mapping[str, Any]) -> float:
        return server_age_seconds(reply) + self.clock.ahead_seconds

    def put(self, name: str, content: bytes) -> None:
        self.bucket.put(f"in/{name}", content)

    def remove(self, name: str) -> None:
        self.bucket.delete(f"in/{name}")

    def read(self, name: str) -> bytes | None:
        return self.bucket.get(f"in/{name}")

    def break_down(self) -> None:
        self.bucket.drop()

    def moved_to(self) -> str:
        return f"s3://{self.bucket.name}/done/"


class S3Bench(BucketBench):
    def __init__(self, folder: Path, bucket: Bucket) -> None:
        super().__init__(folder, bucket)
        self.source = S3Source(
            self.place,
            self.settings,
            Everything(),
            self.surroundings,
            poll_interval_seconds=0.1,
            age_seconds=self.age_seconds,
        )


class SqsBench(BucketBench):
    def __init__(self, folder: Path, bucket: Bucket, queue: Queue) -> None:
        super().__init__(folder, bucket)
        self.source = ToldAgain(
            queue.address,
            self.place,
            self.settings,
            Everything(),
            self.surroundings,
            wait_seconds=0,
            age_seconds=self.age_seconds,
        )
        self.source.tell = lambda: queue.send(created_event(bucket.name, *bucket.keys("in/")))


class ToldAgain(SqsSource):
    """A queue tells of each change once. This one tells at each start of all that is there, as a listing does."""

    tell: Callable[[], object]

    def run(self, ledger: Ledger, watcher: Watcher, stopped: Callable[[], bool]) -> None:
        self.tell()
        super().run(ledger, watcher, stopped)


def folder_bench(request: pytest.FixtureRequest, folder: Path) -> Bench:
    return FolderBench(folder)


def s3_bench(request: pytest.FixtureRequest, folder: Path) -> Bench:
    return S3Bench(folder, request.getfixturevalue("bucket"))


def sqs_bench(request: pytest.FixtureRequest, folder: Path) -> Bench:
    return SqsBench(folder, request.getfixturevalue("moto_bucket"), request.getfixturevalue("queue"))


BENCHES = {"folder": folder_bench, "s3": s3_bench, "sqs": sqs_bench}


@pytest.fixture
def queue(moto_bucket: Bucket) -> Iterator[Queue]:
    with queue_for(moto_bucket) as queue:
        yield queue


def test_every_source_has_a_bench() -> None:
    assert set(BENCHES) == set(REGISTRY)


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield BENCHES[request.param](request, tmp_path)


def discover(bench: Bench) -> list[Candidate]:
    with watched(bench.source) as state:
        state.drained()
    return state.ledger.jobs


def the_job(bench: Bench, content: bytes = b"hello") -> Job:
    bench.put("a/b.txt", content)
    (found,) = discover(bench)
    return job_for(found)


def fetched(bench: Bench, job: Job) -> bytes:
    with bench.source.fetch(job) as document:
        return os.pread(document.fd, document.size_bytes + 1, 0)


def test_what_is_discovered_can_be_fetched(bench: Bench) -> None:
    job = the_job(bench)
    assert (job.source, job.size_bytes) == (b"a/b.txt", 5)
    assert fetched(bench, job) == b"hello"
    with bench.source.fetch(job) as document:
        bench.source.verify(job, document)


def test_discovery_says_the_same_version_until_the_content_changes(bench: Bench) -> None:
    job = the_job(bench)
    assert [found.version for found in discover(bench)] == [job.version]
    bench.put("a/b.txt", b"other")
    (found,) = discover(bench)
    assert found.version != job.version
    assert not bench.source.may_be_same(job.version, found.version)


def test_a_changed_document_is_not_fetched(bench: Bench) -> None:
    job = the_job(bench)
    bench.put("a/b.txt", b"other")
    with pytest.raises(SourceChanged), bench.source.fetch(job):
        pass


def test_a_removed_document_is_not_fetched(bench: Bench) -> None:
    job = the_job(bench)
    assert bench.source.exists(job.source)
    bench.remove("a/b.txt")
    assert not bench.source.exists(job.source)
    with pytest.raises(SourceVanished), bench.source.fetch(job):
        pass


def test_a_change_while_it_is_converted_is_noticed(bench: Bench) -> None:
    job = the_job(bench)
    with bench.source.fetch(job) as document:
        bench.put("a/b.txt", b"hello, more")
        with pytest.raises(SourceChanged):
            bench.source.verify(job, document)


def test_a_removal_while_it_is_converted_is_noticed(bench: Bench) -> None:
    job = the_job(bench)
    with bench.source.fetch(job) as document:
        bench.remove("a/b.txt")
        with pytest.raises((SourceVanished, SourceChanged)):
            bench.source.verify(job, document)


def test_a_source_that_is_gone_is_not_a_document_that_is_gone(bench: Bench) -> None:
    job = the_job(bench)
    bench.source.probe()
    bench.source.vouch()
    bench.break_down()
    with pytest.raises(EnvironmentProblem):
        bench.source.probe()
    with pytest.raises(EnvironmentProblem):
        bench.source.exists(job.source)
    with pytest.raises(EnvironmentProblem), bench.source.fetch(job):
        pass
    with pytest.raises(EnvironmentProblem):
        bench.source.dispose(job, Disposal("delete"))


def test_delete_removes_the_converted_version(bench: Bench) -> None:
    job = the_job(bench)
    assert bench.source.dispose(job, Disposal("delete")) is None
    assert bench.read("a/b.txt") is None
    assert bench.source.dispose(job, Disposal("delete")) is None, "again, as after a crash"


def test_what_is_to_be_kept_now_stays_where_it_is(bench: Bench) -> None:
    job = the_job(bench)
    with pytest.raises(SourceChanged):
        bench.source.dispose(job, Disposal("keep"))
    assert bench.read("a/b.txt") == b"hello"


def test_delete_keeps_a_newer_version(bench: Bench) -> None:
    job = the_job(bench)
    bench.put("a/b.txt", b"newer")
    with pytest.raises(SourceChanged):
        bench.source.dispose(job, Disposal("delete"))
    assert bench.read("a/b.txt") == b"newer"


def test_nothing_is_disposed_of_within_five_seconds_of_its_change(bench: Bench) -> None:
    bench.put("a/b.txt", b"hello")
    (found,) = discover(bench)
    bench.clock.ahead_seconds = 0
    with pytest.raises(NotYet) as early:
        bench.source.dispose(job_for(found), Disposal("delete"))
    assert 0 < early.value.seconds <= 5
    assert bench.read("a/b.txt") == b"hello"


def test_a_moved_document_is_fetched_from_where_it_lies_now(bench: Bench) -> None:
    job = the_job(bench)
    location = bench.source.dispose(job, Disposal("move", bench.moved_to()))
    assert location is not None
    assert location.endswith(b"a/b.txt")
    assert bench.read("a/b.txt") is None
    assert bench.source.dispose(job, Disposal("move", bench.moved_to())) == location, "again, as after a crash"
    moved = job_for(Candidate(job.source, job.version, job.size_bytes), location=location)
    assert fetched(bench, moved) == b"hello"
    with bench.source.fetch(moved) as document:
        bench.source.verify(moved, document)
    assert bench.source.dispose(moved, Disposal("move", bench.moved_to())) == location, "it is there already"
    assert bench.source.dispose(moved, Disposal("delete")) is None
    with pytest.raises(SourceVanished), bench.source.fetch(moved):
        pass


def test_why_tells_whether_a_document_is_taken(bench: Bench) -> None:
    job = the_job(bench)
    assert list(bench.source.explain(job.source)) == ["taken by this watch"]
    (reason,) = bench.source.explain(b"a/.hidden")
    assert "hidden" in reason
    (reason,) = bench.source.explain(b"absent")
    assert "not there" in reason

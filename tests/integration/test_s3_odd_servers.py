"""Servers that answer as none should: nothing is lost, nothing goes in circles, no document pauses its watch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.buckets import Prefix
from daemon.errors import EnvironmentProblem, SourceChanged
from daemon.model import Candidate, Disposal
from daemon.payload import Payloads
from daemon.s3.clients import Clients
from daemon.settings import S3
from daemon.sinks.base import Origin
from daemon.sinks.base import Surroundings as SinkSurroundings
from daemon.sinks.s3 import S3Sink
from daemon.sources.base import Surroundings
from daemon.sources.s3 import S3Source
from tests.harness import until
from tests.loopback import settings_for
from tests.odd_server import BUCKET, OddServer, strong
from tests.watching import Everything, job_for, watched

LARGE_BYTES = 40 << 20


@pytest.fixture
def server() -> Iterator[OddServer]:
    with OddServer() as odd:
        yield odd


@pytest.fixture
def settings(server: OddServer, tmp_path: Path) -> S3:
    return settings_for(server.url, tmp_path)


@pytest.fixture
def source(settings: S3, tmp_path: Path) -> S3Source:
    surroundings = Surroundings(Payloads(str(tmp_path), 64 << 20, 64 << 20), Clients(20))
    return S3Source(Prefix(BUCKET, "in/"), settings, Everything(), surroundings, poll_interval_seconds=0.05)


@pytest.fixture
def sink(settings: S3) -> S3Sink:
    return S3Sink(Prefix(BUCKET, "out/"), SinkSurroundings(Clients(4)), settings)


def discovered(source: S3Source) -> Candidate:
    with watched(source) as state:
        state.drained()
    (found,) = state.ledger.jobs
    return found


@pytest.mark.parametrize("size_bytes", [5, LARGE_BYTES])
def test_a_server_with_weak_etags_is_read(server: OddServer, source: S3Source, size_bytes: int) -> None:
    server.etag = lambda key, content: f"W/{strong(key, content)}"
    server.matches = lambda condition, etag: False  # as the standard has it
    server.put("in/a", bytes(size_bytes))
    job = job_for(discovered(source))
    with source.fetch(job) as document:
        assert os.fstat(document.fd).st_size == size_bytes
        source.verify(job, document)
    assert source.dispose(job, Disposal("delete")) is None
    assert server.objects == {}


def test_a_server_that_recognises_none_of_its_etags_is_read(server: OddServer, source: S3Source) -> None:
    server.matches = lambda condition, etag: False
    server.put("in/a", os.urandom(LARGE_BYTES))
    job = job_for(discovered(source))
    with source.fetch(job) as document:
        assert os.pread(document.fd, LARGE_BYTES + 1, 0) == server.objects["in/a"]


def test_a_listing_with_etags_of_its_own_is_news_once(server: OddServer, source: S3Source) -> None:
    server.listed_etag = lambda key, content: '"as-listed"'
    server.put("in/a", b"hello")
    with watched(source) as state:
        state.drained()
        with pytest.raises(SourceChanged), source.fetch(job_for(state.ledger.jobs[-1])):
            pass
        source.recheck(b"a")
        until(lambda: len(state.ledger.jobs) == 2, "the object is queued as it is")
        listings, looks = server.asked["LIST"], server.asked["HEAD"]
        until(lambda: server.asked["LIST"] > listings + 5, "it is listed again and again")
        assert len(state.ledger.jobs) == 2
        assert server.asked["HEAD"] - looks <= 2, "what was found out once is not asked for at each listing"
        server.put("in/a", b"other")
        server.listed_etag = lambda key, content: '"listed anew"'
        until(lambda: len(state.ledger.jobs) == 3, "a real change is still seen")
    with source.fetch(job_for(state.ledger.jobs[-1])) as document:
        assert os.pread(document.fd, 9, 0) == b"other"


def test_objects_that_answer_oddly_do_not_pause_the_watch(server: OddServer, source: S3Source) -> None:
    for number in range(20):
        server.put(f"in/{number}", b"words")
    for refusal in ((400, "InvalidRequest"), (403, "InvalidObjectState"), (404, "NoSuchKey")):
        server.refuse = lambda method, key, refusal=refusal: refusal if method == "GET" and key else None  # type: ignore[misc]
        source.probe()
    server.refuse = lambda method, key: (403, "AccessDenied") if method == "GET" and key else None
    with pytest.raises(EnvironmentProblem, match="AccessDenied"):
        source.probe()


def test_a_probe_does_not_take_in_a_whole_object(server: OddServer, source: S3Source) -> None:
    server.ranges = False
    server.put("in/a", bytes(LARGE_BYTES))
    source.probe()


def test_a_sink_whose_etags_match_nothing_is_written(server: OddServer, sink: S3Sink) -> None:
    server.matches = lambda condition, etag: False
    origin = Origin(b"a", "1", lambda: None)
    sink.publish("a", {".md": b"one"}, origin)
    sink.publish("a", {".md": b"two"}, origin)
    assert server.objects["out/a.md"] == b"two"


def test_a_sink_with_weak_etags_or_none_is_written(server: OddServer, sink: S3Sink) -> None:
    for etag in ('W/"weak"', ""):
        server.etag = lambda key, content, etag=etag: etag  # type: ignore[misc]
        server.conditions.clear()
        sink.publish("a", {".md": b"one"}, Origin(b"a", "1", lambda: None))
        sink.publish("a", {".md": b"two"}, Origin(b"a", "1", lambda: None))
        assert server.conditions[-1] == ""
        assert server.objects["out/a.md"] == b"two"


def test_one_refused_look_does_not_end_the_protection_of_newer_results(server: OddServer, sink: S3Sink) -> None:
    origin = Origin(b"a", "1", lambda: None)
    sink.publish("a", {".md": b"one"}, origin)
    server.refuse = lambda method, key: (403, "AccessDenied") if method == "HEAD" else None
    sink.publish("a", {".md": b"two"}, origin)
    server.refuse = lambda method, key: None
    server.conditions.clear()
    sink.publish("a", {".md": b"three"}, origin)
    assert server.conditions == [strong("", b"two")]


def test_a_result_that_is_gone_is_removed(server: OddServer, sink: S3Sink) -> None:
    server.put("out/a.error.json", b"{}")
    server.refuse = lambda method, key: (404, "NoSuchKey") if method == "DELETE" else None
    sink.remove("a", (".error.json",))


def test_the_canary_has_one_name_where_it_may_not_be_deleted(server: OddServer, sink: S3Sink) -> None:
    server.refuse = lambda method, key: (403, "AccessDenied") if method == "DELETE" else None
    for _ in range(3):
        with pytest.raises(EnvironmentProblem):
            sink.probe(0)
    assert len(server.objects) == 1

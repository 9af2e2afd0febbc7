"""Whatever befalls the connection to a bucket: right bytes or a typed error, never wrong ones, and never for ever."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import pytest

from daemon.buckets import Prefix
from daemon.errors import ConvertdError, EnvironmentProblem, SourceChanged, SourceVanished, Stopped, TransientError
from daemon.model import Candidate, Disposal, Job
from daemon.payload import Payloads
from daemon.s3 import clients, download, writing
from daemon.s3.clients import Clients
from daemon.s3.listing import pages
from daemon.sinks.base import UNKNOWN, Origin
from daemon.sinks.base import Surroundings as SinkSurroundings
from daemon.sinks.s3 import S3Sink
from daemon.sources import s3_contents, s3_polling
from daemon.sources.base import Surroundings
from daemon.sources.s3 import S3Source
from daemon.sources.s3_version import object_version
from tests import servers
from tests.fault_proxy import Fault, FaultProxy
from tests.harness import until
from tests.servers import Bucket, S3Server
from tests.watching import Everything, job_for, watched

DEADLINE_SECONDS = 60.0
STOP_SECONDS = 2.0
MIB = 1 << 20
CONTENTS = {"small": os.urandom(5000), "large": os.urandom(33 * MIB)}
"""What is fetched by one request, and what by many."""
MOVED = os.urandom(12 * MIB)
FILES = {".json": b'{"new": true}', ".md": b"# the new one"}
OLD = {".json": b'{"new": false}', ".md": b"# the old one"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for the next try."""
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(download, "TRIES", 3)
    monkeypatch.setattr(download, "SLOWEST_SECONDS", 0.3)
    monkeypatch.setattr(clients, "TRIES", 2)
    monkeypatch.setattr(s3_polling, "RETRY_SECONDS", (0.02,) * 5)


@dataclass
class Line:
    """A part of a bucket, at the other end of a line that can be made bad."""

    bucket: Bucket
    root: str
    proxy: FaultProxy
    folder: Path
    clients: Clients
    stopping: threading.Event

    def source(self, read_timeout_seconds: float = 0.6) -> S3Source:
        return S3Source(
            Prefix(self.bucket.name, f"{self.root}in/"),
            self._settings(read_timeout_seconds),
            Everything(),
            Surroundings(Payloads(str(self.folder), 256 * MIB, 64 * MIB), self.clients, self.stopping),
            poll_interval_seconds=0.05,
            age_seconds=lambda reply: 10.0,
        )

    def sink(self, fault: Callable[[str], None] = lambda label: None, read_timeout_seconds: float = 0.6) -> S3Sink:
        surroundings = SinkSurroundings(self.clients, BoundedSemaphore(2), fault)
        return S3Sink(Prefix(self.bucket.name, f"{self.root}out/"), surroundings, self._settings(read_timeout_seconds))

    def put(self, key: str, content: bytes) -> None:
        self.bucket.put(self.root + key, content)

    def get(self, key: str) -> bytes | None:
        return self.bucket.get(self.root + key)

    def keys(self) -> list[str]:
        return [key.removeprefix(self.root) for key in self.bucket.keys(self.root)]

    def outputs(self) -> dict[str, bytes | None]:
        return {key.removeprefix("out/a"): self.get(key) for key in self.keys() if key.startswith("out/")}

    def job(self, name: str) -> Job:
        head = self.bucket.client.head_object(Bucket=self.bucket.name, Key=f"{self.root}in/{name}")
        size_bytes = head["ContentLength"]
        return job_for(Candidate(name.encode(), object_version(head["ETag"].strip('"'), size_bytes), size_bytes))

    def move(self) -> Disposal:
        return Disposal("move", f"s3://{self.bucket.name}/{self.root}done/")

    def url(self, key: str) -> str:
        return f"s3://{self.bucket.name}/{self.root}{key}"

    def _settings(self, read_timeout_seconds: float) -> Any:
        return servers.s3_settings(
            S3Server(self.proxy.url),
            self.folder,
            read_timeout_seconds=read_timeout_seconds,
            connect_timeout_seconds=2.0,
        )


@contextmanager
def line_to(bucket: Bucket, root: str, folder: Path) -> Iterator[Line]:
    with FaultProxy(bucket.server.endpoint_url) as proxy:
        yield Line(bucket, root, proxy, folder, Clients(24), threading.Event())


@pytest.fixture(scope="module")
def shared(s3_server: S3Server) -> Iterator[Bucket]:
    """One bucket for all these tests, with the documents that no test changes: to make one takes its time."""
    with servers.new_bucket(s3_server) as bucket:
        for name, content in CONTENTS.items():
            bucket.put(f"stock/in/{name}", content)
        yield bucket


@pytest.fixture
def stocked(shared: Bucket, tmp_path: Path) -> Iterator[Line]:
    """A line to the documents."""
    with line_to(shared, "stock/", tmp_path) as line:
        yield line


@pytest.fixture
def line(shared: Bucket, tmp_path: Path) -> Iterator[Line]:
    """A line to nothing yet."""
    with line_to(shared, f"{uuid.uuid4().hex[:12]}/", tmp_path) as line:
        yield line


@contextmanager
def begun(work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """The future of something that another thread is doing."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def outcome(work: Callable[[], Any]) -> Any:
    """What it returns, or the type of convertd's error that it raises; fails if it does neither in time."""
    with begun(work) as future:
        error = future.exception(DEADLINE_SECONDS)
    if isinstance(error, ConvertdError):
        return type(error)
    return future.result()


def fetched(source: S3Source, job: Job) -> bytes:
    with source.fetch(job) as document:
        return os.pread(document.fd, document.size_bytes + 1, 0)


# ---------------------------------------------------------------- reading

RIGHT = "right"
GET_FAULTS: dict[str, tuple[dict[str, Any], object, object]] = {
    # what happens, what comes of it if it happens once, and if it happens every time
    "cut": ({"kind": "cut", "after_bytes": 1000}, RIGHT, TransientError),
    "cut at once": ({"kind": "cut"}, RIGHT, TransientError),
    "cut late": ({"kind": "cut", "after_bytes": 2 * MIB}, RIGHT, RIGHT),
    "reset": ({"kind": "reset", "after_bytes": 1000}, RIGHT, TransientError),
    "stall": ({"kind": "stall", "after_bytes": 1000}, RIGHT, TransientError),
    "stall before headers": ({"kind": "stall_before_headers"}, RIGHT, TransientError),
    "truncate": ({"kind": "truncate", "after_bytes": 1000}, RIGHT, TransientError),
    "truncate to nothing": ({"kind": "truncate"}, RIGHT, TransientError),
    "long": ({"kind": "long"}, RIGHT, TransientError),
    "drip": ({"kind": "drip", "after_bytes": 1000}, RIGHT, TransientError),
    "refuse": ({"kind": "refuse"}, RIGHT, TransientError),
    "wrong etag": ({"kind": "wrong_etag"}, SourceChanged, SourceChanged),
    "500": ({"kind": "status", "status": 500, "code": "InternalError"}, RIGHT, TransientError),
    "503": ({"kind": "status", "status": 503, "code": "SlowDown"}, RIGHT, EnvironmentProblem),
    "429": ({"kind": "status", "status": 429, "code": "TooManyRequests"}, RIGHT, EnvironmentProblem),
    "403": ({"kind": "status", "status": 403, "code": "AccessDenied"}, TransientError, TransientError),
}


@pytest.mark.parametrize("what", sorted(GET_FAULTS))
def test_a_fault_while_reading(stocked: Line, what: str) -> None:
    """Right bytes or a typed error; and what is fetched next through the same connections is right."""
    fault, once, always = GET_FAULTS[what]
    source = stocked.source()
    for name, content in CONTENTS.items():
        job = stocked.job(name)
        for times, expected in ((1, once), (None, always)):
            met = stocked.proxy.inject(Fault(method="GET", path=f"/in/{name}", times=times, **fault))
            came = outcome(partial(fetched, source, job))
            assert met.fired.is_set()
            assert came == content if expected is RIGHT else came is expected, (name, times)
            stocked.proxy.clear()
        assert outcome(partial(fetched, source, job)) == content
    assert os.listdir(stocked.folder) == ["credentials"]


def test_what_has_come_is_not_asked_for_again(stocked: Line) -> None:
    source, job = stocked.source(), stocked.job("small")
    stocked.proxy.inject(Fault("cut", method="GET", path="/in/small", after_bytes=1000, times=2))
    assert fetched(source, job) == CONTENTS["small"]
    ranges = [seen.headers.get("range") for seen in stocked.proxy.requests("GET", "/in/small")]
    assert ranges == [None, "bytes=1000-4999", "bytes=2000-4999"]


def test_a_silent_server_is_asked_as_often_as_boto3_asks_and_not_times_as_often(stocked: Line) -> None:
    silent = stocked.proxy.inject(Fault("stall_before_headers", method="GET", path="/in/small", times=None))
    assert outcome(partial(fetched, stocked.source(), stocked.job("small"))) is TransientError
    assert silent.count == clients.TRIES


@pytest.mark.parametrize("name", sorted(CONTENTS))
@pytest.mark.parametrize("kind", ["stall", "stall_before_headers"])
def test_a_stop_wakes_who_waits_for_a_silent_server(stocked: Line, kind: Any, name: str) -> None:
    source, job = stocked.source(read_timeout_seconds=300), stocked.job(name)
    fault = stocked.proxy.inject(Fault(kind, method="GET", path=f"/in/{name}", after_bytes=1000, times=None))
    with begun(partial(fetched, source, job)) as future:
        assert fault.fired.wait(DEADLINE_SECONDS)
        stocked.stopping.set()
        stocked.clients.stop()
        assert isinstance(future.exception(STOP_SECONDS), Stopped)
    with pytest.raises(Stopped):
        fetched(source, job)


def test_a_stop_wakes_a_listing_and_a_probe(stocked: Line) -> None:
    source = stocked.source(read_timeout_seconds=300)
    fault = stocked.proxy.inject(Fault("stall_before_headers", method="GET", path="list-type", times=None))
    with begun(source.probe) as future:
        assert fault.fired.wait(DEADLINE_SECONDS)
        stocked.clients.stop()
        assert isinstance(future.exception(STOP_SECONDS), Stopped)


# ---------------------------------------------------------------- changes while it is read


def test_a_change_between_two_requests_is_noticed_and_versions_are_not_mixed(line: Line) -> None:
    """One part is in hand, the other is asked for when the object is another one of the same size."""
    line.put("in/large", CONTENTS["large"])
    source, job = line.source(read_timeout_seconds=30), line.job("large")
    line.proxy.inject(Fault("cut", method="GET", path="/in/large", headers=wants(0), after_bytes=MIB))
    again = line.proxy.inject(Fault("stall_before_headers", method="GET", headers=wants(MIB)))
    with begun(partial(fetched, source, job)) as future:
        assert again.fired.wait(DEADLINE_SECONDS)
        line.put("in/large", CONTENTS["large"][::-1])
        again.released.set()
        assert isinstance(future.exception(DEADLINE_SECONDS), SourceChanged)


def wants(start: int) -> Callable[[Mapping[str, str]], bool]:
    return lambda headers: headers.get("range", "bytes=0-").startswith(f"bytes={start}-")


def test_a_change_between_listing_and_reading_is_noticed(line: Line) -> None:
    name = "small"
    line.put(f"in/{name}", CONTENTS[name])
    source, job = line.source(), line.job(name)
    line.put(f"in/{name}", CONTENTS[name][::-1])
    assert outcome(partial(fetched, source, job)) is SourceChanged
    assert line.proxy.requests("GET", f"/in/{name}")[0].status == 412
    assert outcome(partial(source.verify, job, None)) is SourceChanged
    line.bucket.delete(f"{line.root}in/{name}")
    assert outcome(partial(fetched, source, job)) is SourceVanished


# ---------------------------------------------------------------- listing

NAMES = [f"{number:02}.txt" for number in range(10)]
LIST_FAULTS: dict[str, dict[str, Any]] = {
    "cut": {"kind": "cut", "after_bytes": 300},
    "reset": {"kind": "reset", "after_bytes": 300},
    "stall": {"kind": "stall", "after_bytes": 300},
    "stall before headers": {"kind": "stall_before_headers"},
    "truncate": {"kind": "truncate", "after_bytes": 300},
    "truncate to nothing": {"kind": "truncate"},
    "refuse": {"kind": "refuse"},
    "500": {"kind": "status", "status": 500, "code": "InternalError"},
    "503": {"kind": "status", "status": 503, "code": "SlowDown"},
    "403": {"kind": "status", "status": 403, "code": "AccessDenied"},
}
FIRST_PAGE = r"list-type=2(?!.*continuation)"
SECOND_PAGE = r"continuation-token=.*03\.txt|continuation-token=.*02\.txt"


@pytest.fixture
def listed(line: Line, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line to a bucket of ten documents, whose listing has several pages."""
    monkeypatch.setattr(s3_contents, "pages", partial(pages, most=3))
    for name in NAMES:
        line.put(f"in/{name}", b"words")
    return line


@pytest.mark.parametrize("what", sorted(LIST_FAULTS))
def test_a_listing_that_breaks_off_is_taken_up_where_it_broke_off(listed: Line, what: str) -> None:
    fault = listed.proxy.inject(Fault(method="GET", path="continuation-token", times=2, **LIST_FAULTS[what]))
    with watched(listed.source(), first_scan=False) as state:
        until(lambda: state.watcher.left is not None, "the listing is through")
        assert state.ledger.sources() == [name.encode() for name in NAMES], "it was through before all was seen"
    assert fault.count == 2
    assert state.watcher.illnesses
    assert state.watcher.recoveries
    pages = listed.proxy.requests("GET", "list-type")
    assert len([seen for seen in pages[:6] if "continuation" not in seen.path]) == 1, "it began anew"
    assert len(state.ledger.jobs) == len(NAMES)


def test_a_listing_that_keeps_breaking_off_begins_anew(listed: Line) -> None:
    """A server may have forgotten what a token means."""
    listed.proxy.inject(Fault("status", method="GET", path="continuation-token", times=None, status=400, code="Bad"))
    with watched(listed.source(), first_scan=False) as state:
        until(lambda: len(listed.proxy.requests("GET", FIRST_PAGE)) >= 3, "it has begun anew")
        assert state.watcher.left is None
        assert len(state.ledger.jobs) == 3
        listed.proxy.clear()
        until(lambda: state.watcher.left is not None, "the listing is through")
        assert state.ledger.sources() == [name.encode() for name in NAMES]
    assert len(state.ledger.jobs) == len(NAMES)


def test_nothing_is_missed_or_queued_twice_while_many_answers_are_lost(listed: Line) -> None:
    for number in range(12):
        listed.proxy.inject(Fault("cut", method="GET", path="list-type", skip=2 * number, after_bytes=200))
    with watched(listed.source(), first_scan=False) as state:
        until(lambda: state.watcher.left is not None, "the listing is through")
        listed.put("in/new.txt", b"words")
        until(lambda: len(state.ledger.jobs) > len(NAMES), "the new one is found")
    assert state.ledger.sources() == [*(name.encode() for name in NAMES), b"new.txt"]


def test_documents_that_come_and_go_between_two_pages_are_no_error(listed: Line) -> None:
    fault = listed.proxy.inject(Fault("stall_before_headers", method="GET", path="continuation-token"))
    with watched(listed.source(read_timeout_seconds=30), first_scan=False) as state:
        assert fault.fired.wait(DEADLINE_SECONDS)
        for name in NAMES[:5]:
            listed.bucket.delete(f"{listed.root}in/{name}")
        listed.put("in/00 first.txt", b"words")
        listed.put("in/99 last.txt", b"words")
        fault.released.set()
        wanted = {name.encode() for name in [*NAMES[5:], "00 first.txt", "99 last.txt"]}
        until(lambda: wanted <= set(state.ledger.sources()), "what is there is found")
    assert state.watcher.illnesses == []
    assert set(state.ledger.sources()) - wanted <= {name.encode() for name in NAMES[:5]}


# ---------------------------------------------------------------- writing

PUT_FAULTS: dict[str, dict[str, Any]] = {
    "503": {"kind": "status", "status": 503, "code": "ServiceUnavailable"},
    "503 although it was done": {"kind": "status", "code": "ServiceUnavailable", "reaches_server": True},
    "refused": {"kind": "refuse"},
    "the answer is lost": {"kind": "refuse", "reaches_server": True},
    "silence": {"kind": "stall_before_headers"},
    "silence although it was done": {"kind": "stall_before_headers", "reaches_server": True},
}
FAILED = (TransientError, EnvironmentProblem)


@pytest.mark.parametrize("what", sorted(PUT_FAULTS))
def test_a_fault_while_writing(line: Line, what: str) -> None:
    """Once, it does not matter; every time it is a typed error. Nobody ever sees anything but whole results."""
    # A busy disk may take longer over a write than a silence should be waited for.
    sink, guarded = line.sink(read_timeout_seconds=0.6 if "silence" in what else 30), Origin(verify=lambda: None)
    for suffix, origin, files in ((".json", guarded, OLD), (".md", UNKNOWN, FILES), (".md", guarded, OLD)):
        line.proxy.inject(Fault(method="PUT", path=rf"/out/a\{suffix}", **PUT_FAULTS[what]))
        assert outcome(partial(sink.publish, "a", files, origin)) == line.url("out/a.md")
        line.proxy.clear()
        assert line.outputs() == files
    line.proxy.inject(Fault(method="PUT", path=r"/out/a\.md", times=None, **PUT_FAULTS[what]))
    assert outcome(partial(sink.publish, "a", FILES)) in FAILED
    assert line.outputs()[".json"] == FILES[".json"]
    assert line.outputs()[".md"] == (FILES if PUT_FAULTS[what].get("reaches_server") else OLD)[".md"]
    line.proxy.clear()
    sink.publish("a", FILES, guarded)
    assert line.outputs() == FILES


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A result that is uploaded in three parts."""
    monkeypatch.setattr(writing, "PARTS_ABOVE_BYTES", MIB)
    monkeypatch.setattr(writing, "PART_BYTES", 5 * MIB)
    return MOVED[: 11 * MIB]


@pytest.mark.parametrize("what", ["503", "refused", "the answer is lost"])
def test_a_fault_while_writing_in_parts(line: Line, what: str, parts: bytes) -> None:
    sink = line.sink(read_timeout_seconds=30)
    line.proxy.inject(Fault(method="PUT", path="partNumber=2", **PUT_FAULTS[what]))
    assert outcome(partial(sink.publish, "a", {".md": parts}, Origin(verify=lambda: None))).endswith("/out/a.md")
    line.proxy.clear()
    assert line.outputs() == {".md": parts}
    line.proxy.inject(Fault(method="PUT", path="partNumber=3", times=None, **PUT_FAULTS[what]))
    assert outcome(partial(sink.publish, "a", {".md": parts[::-1]})) in FAILED
    assert line.outputs() == {".md": parts}
    left = line.bucket.client.list_multipart_uploads(Bucket=line.bucket.name, Prefix=line.root)
    assert not left.get("Uploads")


def test_the_answer_to_the_last_request_of_an_upload_in_parts_is_lost(line: Line, parts: bytes) -> None:
    sink = line.sink(read_timeout_seconds=30)
    line.proxy.inject(Fault("refuse", method="POST", path="uploadId=", reaches_server=True))
    came = outcome(partial(sink.publish, "a", {".md": parts}, Origin(verify=lambda: None)))
    assert came is TransientError or came.endswith("/out/a.md")
    assert line.outputs() == {".md": parts}


def test_who_may_not_look_writes_and_removes_all_the_same(line: Line) -> None:
    """And who may again, looks again."""
    sink, guarded = line.sink(), Origin(verify=lambda: None)
    sink.publish("a", {".error.json": b"{}"})
    line.proxy.inject(Fault("status", method="HEAD", status=403, code="AccessDenied", times=None))
    sink.publish("a", FILES, guarded)
    sink.remove("a", (".error.json",))
    assert line.outputs() == FILES
    line.proxy.clear()
    sink.publish("a", OLD, guarded)
    assert ["if-match" in seen.headers for seen in line.proxy.requests("PUT")] == [False] * 3 + [True] * 2


# ---------------------------------------------------------------- an older result and a newer one


STEPS = ("verified", "put .json", "put .md", "published")


@pytest.mark.parametrize("before", [{}, OLD], ids=["nothing there", "something there"])
@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
def test_an_older_result_never_replaces_a_newer_one(line: Line, step: int, before: dict[str, bytes]) -> None:
    """Two daemons: at whatever step of the older result the newer one is published, the newer one stays."""
    if before:
        line.sink().publish("a", before)
    steps = 0

    def at_each_step(_: str = "") -> None:
        nonlocal steps
        if steps == step:
            line.sink().publish("a", FILES, Origin(verify=lambda: None))
        steps += 1

    def verify() -> None:
        if steps > step:
            raise SourceChanged("the document has changed")
        at_each_step()

    came = outcome(partial(line.sink(at_each_step).publish, "a", {".json": b"-1", ".md": b"-1"}, Origin(verify=verify)))
    assert line.outputs() == FILES
    assert came is SourceChanged or STEPS[step] == "published"


# ---------------------------------------------------------------- deleting and moving


@pytest.mark.parametrize("what", ["503 although it was done", "the answer is lost"])
def test_a_deletion_whose_answer_is_lost_is_done(line: Line, what: str) -> None:
    """Asked for again, the server says that the object is not the one that was meant."""
    line.put("in/small", CONTENTS["small"])
    source, job = line.source(), line.job("small")
    line.proxy.inject(Fault(method="DELETE", **PUT_FAULTS[what]))
    assert outcome(partial(source.dispose, job, Disposal("delete"))) is None
    assert line.keys() == []


@pytest.mark.parametrize("what", ["503", "503 although it was done", "the answer is lost"])
def test_a_fault_while_moving(line: Line, what: str) -> None:
    line.put("in/small", CONTENTS["small"])
    source, job = line.source(), line.job("small")
    always = line.proxy.inject(Fault(method="PUT", path="/done/", times=None, **PUT_FAULTS[what]))
    assert outcome(partial(source.dispose, job, line.move())) in FAILED
    assert line.get("in/small") == CONTENTS["small"]
    line.proxy.clear()
    assert always.count
    line.proxy.inject(Fault(method="PUT", path="/done/", **PUT_FAULTS[what]))
    line.proxy.inject(Fault(method="DELETE", **PUT_FAULTS[what]))
    assert outcome(partial(source.dispose, job, line.move())) == line.url("done/small").encode()
    assert line.keys() == ["done/small"]
    assert line.get("done/small") == CONTENTS["small"]


def uploaded_in_parts(line: Line, key: str, content: bytes) -> None:
    """As large files often are: their etags are no digests of the content."""
    client, where = line.bucket.client, {"Bucket": line.bucket.name, "Key": line.root + key}
    upload = client.create_multipart_upload(**where)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(content), 5 * MIB), start=1):
        body = content[start : start + 5 * MIB]
        part = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})


def test_another_document_of_the_same_size_is_not_taken_for_a_copy(line: Line) -> None:
    """Neither may be lost, though their etags do not tell whether they are the same."""
    first, second = MOVED[: 6 * MIB], MOVED[6 * MIB :]
    for content in (first, second):
        uploaded_in_parts(line, "in/scan.tif", content)
        line.source().dispose(line.job("scan.tif"), line.move())
    assert line.keys() == ["done/scan.tif", "done/scan~1.tif"]
    assert line.get("done/scan.tif") == first
    assert line.get("done/scan~1.tif") == second


def test_a_copy_that_a_crash_left_is_not_made_twice(line: Line) -> None:
    content = MOVED[: 6 * MIB]
    uploaded_in_parts(line, "in/scan.tif", content)
    line.put("done/scan.tif", content)  # copying makes one part of many
    location = line.source().dispose(line.job("scan.tif"), line.move())
    assert location == line.url("done/scan.tif").encode()
    assert line.keys() == ["done/scan.tif"]

"""Row `listing`: a bucket of 200,000 keys of which nothing has changed, and then one in a hundred."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

from daemon.buckets import Prefix
from daemon.db import Readers, Writer
from daemon.globs import Filter
from daemon.jobs import JobTable
from daemon.model import Candidate
from daemon.payload import Payloads
from daemon.s3.clients import Clients
from daemon.settings import S3
from daemon.sources.base import Surroundings
from daemon.sources.s3 import S3Source
from tests.bench.listing_server import change, serving
from tests.bench.measure import private_bytes
from tests.bench.rows import AT_MOST, EXACTLY, Row, ratios
from tests.bench.suite import Bench, Setting
from tests.watching import MemoryWatcher

KEYS, QUICK_KEYS = 200_000, 20_000
CHANGED_EVERY = 100
FURTHER_POLLS = 5
FLAT_MIB = 2.0
WATCH = "bench"


class Ledger:
    """The job table as a watch's discovery gives it to its source; remembers what was queued."""

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, "convertd.db")
        self.writer = Writer(path)
        self.writer.start()
        self._jobs = JobTable(self.writer, Readers(path))
        self._jobs.register(WATCH, "s3://bucket/in/", "out")
        self.queued: list[bytes] = []

    def unknown(self, candidates: list[Candidate]) -> list[Candidate]:
        return self._jobs.known.unknown(WATCH, candidates)

    def enqueue(self, candidates: list[Candidate]) -> int:
        jobs, _ = self._jobs.enqueue(WATCH, candidates, 5)
        self.queued += [job.source for job in jobs]
        return len(jobs)

    def unfinished(self, sources: list[bytes]) -> set[bytes]:
        return self._jobs.known.unfinished(WATCH, sources)


@dataclass(frozen=True)
class Took:
    """Seconds of one poll."""

    wall: float
    cpu: float


class OnePoll(MemoryWatcher):
    """A watcher that has a source stop once it has seen everything."""

    def stopped(self) -> bool:
        return self.left is not None


def listing(setting: Setting) -> Iterator[Row]:
    """A real source over a real job table; the server needs next to nothing itself."""
    keys = setting.sized(KEYS, QUICK_KEYS)
    with (
        serving("--keys", str(keys), "--prefix", "in") as url,
        tempfile.TemporaryDirectory(dir=setting.folder) as state,
    ):
        ledger = Ledger(state)
        try:
            yield from _rows(url, ledger, setting.rounds, keys)
        finally:
            ledger.writer.close()


def _rows(url: str, ledger: Ledger, rounds: int, keys: int) -> Iterator[Row]:
    fast, slow = _source(url), _source(url)
    first = _poll(fast, ledger)
    assert len(ledger.queued) == keys, f"{len(ledger.queued)} of {keys} keys were queued"
    ledger.queued.clear()
    yield Row(
        f"listing: {keys:,} new keys, all queued, one run: keys/s",
        _seconds([first]),
        "",
        _speeds([first], keys),
        digits=0,
    )
    with_parser = mock.patch("daemon.sources.s3_contents.read_fast", lambda client: None)
    took, theirs = [], []
    with with_parser:
        _poll(slow, ledger)  # so that it has its connection, as the other has
    for _ in range(rounds):
        took.append(_poll(fast, ledger))
        with with_parser:
            theirs.append(_poll(slow, ledger))
    label = f"listing: {keys:,} keys, nothing changed"
    yield Row(f"{label}: keys/s", _seconds(took), "", _speeds(took, keys), target=80_000, digits=0)
    yield Row(
        f"{label}: with boto3's parser / ours",
        _seconds(took),
        _seconds(theirs),
        ratios((one.wall for one in theirs), (one.wall for one in took)),
        target=5,
    )
    on_cpu = [one.cpu for one in took]
    yield Row(
        f"{label}: keys a second of CPU time",
        f"{statistics.median(on_cpu):.1f} s",
        "",
        [keys / seconds for seconds in on_cpu],
        digits=0,
    )
    yield _growth(fast, ledger)
    assert not ledger.queued, f"{len(ledger.queued)} keys were queued though nothing has changed"
    expected = {_source_path(number) for number in range(0, keys, CHANGED_EVERY)}
    queued = []
    for _ in range(rounds):
        change(url, CHANGED_EVERY)
        _poll(fast, ledger)
        assert set(ledger.queued) == expected, "other keys were queued than have changed"
        queued.append(float(len(ledger.queued)))
        ledger.queued.clear()
    yield Row(
        "listing: one key in 100 changed: queued, and exactly these",
        f"{statistics.median(queued):,.0f}",
        f"{len(expected):,}",
        queued,
        EXACTLY,
        target=len(expected),
        digits=0,
    )


def _growth(source: S3Source, ledger: Ledger) -> Row:
    gc.collect()
    before = private_bytes(os.getpid())
    grew = []
    for _ in range(FURTHER_POLLS):
        _poll(source, ledger)
        grew.append((private_bytes(os.getpid()) - before) / 2**20)
    return Row(
        f"listing: growth of RSS over {FURTHER_POLLS} further polls, at most, one run, MiB",
        f"{before / 2**20:.0f} MiB in all",
        "",
        [max(grew)],
        AT_MOST,
        target=FLAT_MIB,
    )


def _poll(source: S3Source, ledger: Ledger) -> Took:
    watcher = OnePoll()
    begun, cpu_begun = time.perf_counter(), time.process_time()
    source.run(ledger, watcher, watcher.stopped)
    took = Took(time.perf_counter() - begun, time.process_time() - cpu_begun)
    assert not watcher.illnesses, watcher.illnesses
    return took


def _seconds(took: Sequence[Took]) -> str:
    return f"{statistics.median(one.wall for one in took):.1f} s"


def _speeds(took: Sequence[Took], keys: int) -> list[float]:
    return [keys / one.wall for one in took]


def _source(url: str) -> S3Source:
    surroundings = Surroundings(Payloads("", 1, 0), Clients(4), threading.Event())
    return S3Source(Prefix("bucket", "in/"), S3(endpoint_url=url), Filter(["**/*"], []), surroundings)


def _source_path(number: int) -> bytes:
    return b"%06d/doc-%07d.pdf" % (number // 1000, number)


BENCH = Bench(
    name="listing",
    work="a bucket of 200,000 keys of which nothing has changed",
    against="the same with boto3's own parser",
    to_reach="≥ 5 times as fast, ≥ 80,000 keys/s, memory flat",
    feels="A large bucket can be looked at often without keeping the daemon from its work.",
    run=listing,
)

"""Row `uploads`: small results to a server that takes 30 ms for each request."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from daemon.buckets import Prefix
from daemon.s3.clients import Clients
from daemon.settings import S3
from daemon.sinks.base import Origin, Surroundings
from daemon.sinks.s3 import S3Sink
from tests.bench.link import reset, serving, stats
from tests.bench.rows import EXACTLY, Row, ratios
from tests.bench.suite import Bench, Setting

THREADS = 32
RESULTS = 1000
RESULTS_SINGLY = 200
FILES = {".json": b'{"source": "a.pdf"}', ".md": b"# A result\n\nSome words.\n"}


class Uploading:
    """A sink at the server, of which so many uploads may be under way."""

    def __init__(self, url: str, concurrency: int) -> None:
        self._url = url
        self.concurrency = concurrency
        uploads = threading.BoundedSemaphore(concurrency)
        self._sink = S3Sink(Prefix("bucket", "out/"), Surroundings(Clients(THREADS), uploads), S3(endpoint_url=url))
        self.rates: list[float] = []
        self.most: list[int] = []
        self._publish("warm")

    def round(self, results: int) -> None:
        """Publish so many results from many threads, as the daemon's workers do: looked at, verified, written."""
        reset(self._url)
        begun = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(self._publish, f"{number:04d}.pdf") for number in range(results)]:
                done.result()
        self.rates.append(results / (time.perf_counter() - begun))
        self.most.append(int(stats(self._url)["in_flight_max"]))

    def _publish(self, name: str) -> None:
        self._sink.publish(name, FILES, Origin(name.encode(), "1-0", verify=lambda: None))


def uploads(setting: Setting) -> Iterator[Row]:
    """Two files a result; the server counts what is under way."""
    results, singly = setting.sized((RESULTS, RESULTS_SINGLY), (RESULTS // 5, RESULTS_SINGLY // 5))
    with serving("--put-latency", "0.03") as url:
        one, five, twenty = (Uploading(url, concurrency) for concurrency in (1, 5, 20))
        for _ in range(setting.rounds):
            one.round(singly)
            five.round(results)
            twenty.round(results)
    yield Row(
        "uploads: requests under way at the server, concurrency 5",
        "",
        "",
        [float(most) for most in five.most],
        EXACTLY,
        target=5,
        digits=0,
    )
    for many, target in ((five, 3.0), (twenty, None)):
        yield Row(
            f"uploads: results/s with {many.concurrency} at once / with one",
            _rate(many),
            _rate(one),
            ratios(many.rates, one.rates),
            target=target,
        )


def _rate(uploading: Uploading) -> str:
    return f"{statistics.median(uploading.rates):.1f}/s"


BENCH = Bench(
    name="uploads",
    work="small results to a bucket that takes 30 ms for each request, five at once",
    against="one at a time",
    to_reach="≥ 3 times as many a second, never more than five under way",
    feels="Results reach a distant bucket without a queue building up behind it.",
    run=uploads,
)

"""The benchmarks of the suite, in the order in which they are run. A new one is a file and a line here."""

from __future__ import annotations

from tests.bench import (
    backlog,
    dispatching,
    drain,
    drop,
    history,
    idle,
    job_table,
    live_view,
    long_drain,
    messages,
    notify,
    operated,
    reading,
    s3_listing,
    s3_memory,
    s3_stream,
    s3_uploads,
    startup,
    workers,
)
from tests.bench.suite import Bench

BENCHES: tuple[Bench, ...] = (
    s3_stream.STREAM,
    s3_stream.MEDIUM,
    reading.BENCH,
    job_table.BENCH,
    history.BENCH,
    dispatching.BENCH,
    messages.BENCH,
    drop.BENCH,
    drain.DRAIN,
    drain.SCANNED,
    workers.BENCH,
    backlog.BENCH,
    long_drain.BENCH,
    idle.BENCH,
    notify.BENCH,
    operated.BENCH,
    startup.BENCH,
    live_view.BENCH,
    s3_listing.BENCH,
    s3_uploads.BENCH,
    s3_memory.BENCH,
)

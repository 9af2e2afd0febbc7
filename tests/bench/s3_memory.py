"""Row `memory`: 200 objects of 30 MB through a daemon that may hold 128 MiB."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.link import serving
from tests.bench.measure import sampled
from tests.bench.rows import AT_MOST, Row
from tests.bench.s3_fetch import CREDENTIALS, resident_bytes
from tests.bench.suite import Bench, Setting
from tests.harness import Daemon, children_of, until
from tests.servers import free_ports

OBJECTS = 200
QUICK_OBJECTS = 30
OBJECT_BYTES = 30_000_000
WORKERS = 8
IN_FLIGHT_MIB = 128
ALLOWED_MIB = IN_FLIGHT_MIB + 64
SAMPLE_SECONDS = 0.02
DRAIN_SECONDS = 600.0
CONFIG = """
state_dir = "state"
workers = {workers}
[limits]
in_flight = "{in_flight}MiB"
spool_above = "100MiB"
[[watch]]
name = "bucket"
source = "s3://bucket/"
sink = "outbox"
poll_interval = "1s"
[watch.s3]
endpoint_url = "{url}"
addressing = "path"
"""


def memory(setting: Setting) -> Iterator[Row]:
    """Growth from an idle daemon to the highest: objects that no converter takes, which go through as fast as they
    come; and texts, whose Markdown is as large as they are."""
    objects = setting.sized(OBJECTS, QUICK_OBJECTS)
    for label, options in (("no document", ()), ("texts", ("--text",))):
        yield Row(
            f"memory: {objects} objects of 30 MB ({label}), in_flight 128 MiB: growth, MiB",
            "",
            "",
            [_growth_mib(setting.folder, objects, options) for _ in range(setting.rounds)],
            AT_MOST,
            target=ALLOWED_MIB,
            digits=0,
        )


def _growth_mib(folder: str, objects: int, options: Sequence[str]) -> float:
    port = free_ports(1)[0]
    config = CONFIG.format(workers=WORKERS, in_flight=IN_FLIGHT_MIB, url=f"http://127.0.0.1:{port}")
    server = ("--port", str(port), "--size", str(OBJECT_BYTES), "--objects", str(objects), *options)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        daemon = Daemon(Path(place), config)
        try:
            process = daemon.launch(env=CREDENTIALS)
            until(lambda: _looks_for_its_bucket(daemon), "the daemon looks for its bucket")
            with serving(*server):
                before = _held_bytes(process.pid)
                highest = [before]
                with sampled(lambda: _held_bytes(process.pid), highest, SAMPLE_SECONDS):
                    until(lambda: _ended(daemon) == objects, "all objects are through", DRAIN_SECONDS)
        finally:
            daemon.close()
    return (highest[0] - before) / 2**20


def _held_bytes(pid: int) -> int:
    return resident_bytes(pid, children_of(pid))


def _looks_for_its_bucket(daemon: Daemon) -> bool:
    """By then it has loaded what it needs for buckets."""
    return any(watch["error"] for watch in daemon.status().get("watches", ()))


def _ended(daemon: Daemon) -> int:
    return sum(name.endswith((".md", ".error.json")) for name in os.listdir(daemon.outbox))


BENCH = Bench(
    name="memory",
    work="200 objects of 30 MB through a daemon that may hold 128 MiB of documents",
    against="the idle daemon",
    to_reach="growth ≤ 192 MiB",
    feels="What the configuration allows in memory is what the machine needs to have.",
    run=memory,
)

"""A daemon that starts over 100,000 files that are there already."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench import corpus
from tests.bench.draining import CONFIG, OFF
from tests.bench.measure import private_bytes
from tests.bench.rows import AT_MOST, Row
from tests.bench.suite import Bench, Setting
from tests.harness import Daemon, until

FILES, QUICK_FILES = 100_000, 10_000
ROUNDS = 3
"""Each round is more than a minute of work for the machine."""
IDLE_SECONDS = 2.0
GIVE_UP_SECONDS = 300.0


class Started(NamedTuple):
    """What came of a start."""

    queued_seconds: float
    status_seconds: float
    growth_mib: float


def backlog(setting: Setting) -> Iterator[Row]:
    """From the start of the process; conversion begins meanwhile, as it does."""
    count = setting.sized(FILES, QUICK_FILES)
    files = Path(setting.folder) / "files"
    corpus.small(files, count)
    idle_bytes = _idle_bytes(Path(setting.folder) / "idle")
    starts = []
    for number in range(min(setting.rounds, ROUNDS)):
        folder = Path(setting.folder) / str(number)
        folder.mkdir()
        files.rename(folder / "inbox")
        starts.append(_start(folder, count, idle_bytes))
        (folder / "inbox").rename(files)
    label = f"backlog: {count:,} files there at the start"
    rows = (
        ("until all are queued, s", [one.queued_seconds for one in starts], 60.0),
        ("the longest that `status` took meanwhile, s", [one.status_seconds for one in starts], 5.0),
        ("growth of the daemon's memory over an idle one, MiB", [one.growth_mib for one in starts], 150.0),
    )
    for what, values, target in rows:
        yield Row(f"{label}: {what}", "", "", values, AT_MOST, target=target, digits=1)


def _start(folder: Path, count: int, idle_bytes: int) -> Started:
    daemon = Daemon(folder, CONFIG.format(workers=0, ocr=OFF))
    began = time.monotonic()
    process = daemon.launch()
    highest, longest = 0, 0.0
    try:
        until(daemon.state_exists, "there is a job table")
        while True:
            asked = time.monotonic()
            jobs = daemon.status()["jobs"]
            longest = max(longest, time.monotonic() - asked)
            highest = max(highest, private_bytes(process.pid))
            if sum(jobs.values()) >= count:
                break
            assert time.monotonic() - began < GIVE_UP_SECONDS, f"{jobs} after {GIVE_UP_SECONDS:.0f} s"
        return Started(time.monotonic() - began, longest, (highest - idle_bytes) / 2**20)
    finally:
        daemon.close()


def _idle_bytes(folder: Path) -> int:
    folder.mkdir()
    daemon = Daemon(folder, CONFIG.format(workers=0, ocr=OFF))
    try:
        daemon.start()
        threading.Event().wait(IDLE_SECONDS)
        assert daemon.process is not None
        return private_bytes(daemon.process.pid)
    finally:
        daemon.close()


BENCH = Bench(
    name="backlog",
    work="a start over 100,000 small files",
    against="nothing: absolute figures; for memory an idle daemon",
    to_reach="all queued in ≤ 60 s, `status` answers within 5 s meanwhile, growth of memory ≤ 150 MiB",
    feels="An archive can be dropped in as a whole.",
    run=backlog,
)

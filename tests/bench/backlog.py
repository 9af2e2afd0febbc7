"""A daemon that starts over 100,000 files that are there already."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench import corpus
from tests.bench.draining import CONFIG, OFF
from tests.bench.measure import private_bytes, sampled
from tests.bench.rows import AT_MOST, Row
from tests.bench.suite import Bench, Setting
from tests.harness import Daemon

FILES, QUICK_FILES = 100_000, 10_000
IDLE_SECONDS = 2.0
GIVE_UP_SECONDS = 300.0
SAMPLE_SECONDS = 0.05


class Started(NamedTuple):
    """What came of a start."""

    queued_seconds: float
    status_seconds: float
    growth_mb: float


def backlog(setting: Setting) -> Iterator[Row]:
    """From the start of the process; conversion begins meanwhile, as it does."""
    count = setting.sized(FILES, QUICK_FILES)
    files = Path(setting.folder) / "files"
    corpus.small(files, count)
    idle_bytes = _idle_bytes(Path(setting.folder) / "idle")
    starts = []
    for number in range(setting.rounds):
        folder = Path(setting.folder) / str(number)
        folder.mkdir()
        files.rename(folder / "inbox")
        starts.append(_start(folder, count, idle_bytes))
        (folder / "inbox").rename(files)
    label = f"backlog: {count:,} files there at the start"
    rows = (
        ("until all are queued, s", [one.queued_seconds for one in starts], 60.0),
        ("the longest that `status` took meanwhile, s", [one.status_seconds for one in starts], 5.0),
        ("growth of the daemon's memory over an idle one, MB", [one.growth_mb for one in starts], 150.0),
    )
    for what, values, target in rows:
        yield Row(f"{label}: {what}", "", "", values, AT_MOST, target=target, digits=1)


def _start(folder: Path, count: int, idle_bytes: int) -> Started:
    daemon = Daemon(folder, CONFIG.format(workers=0, ocr=OFF))
    began = time.monotonic()
    highest, longest, queued = [0], 0.0, 0
    try:
        process = daemon.start().process
        assert process is not None
        with sampled(lambda: private_bytes(process.pid), highest, SAMPLE_SECONDS):
            while queued < count:
                asked = time.monotonic()
                queued = _queued(daemon)
                longest = max(longest, time.monotonic() - asked)
                assert asked - began < GIVE_UP_SECONDS, f"{queued} are queued after {GIVE_UP_SECONDS:.0f} s"
            seconds = time.monotonic() - began
        return Started(seconds, longest, (highest[0] - idle_bytes) / 1e6)
    finally:
        daemon.close()


def _queued(daemon: Daemon) -> int:
    """All jobs that `status` knows. It must answer."""
    answer = daemon.command("status", "--json")
    assert answer.returncode == 0, f"status: exit code {answer.returncode}: {answer.stderr.strip()[-300:]}"
    return sum(json.loads(answer.stdout)["jobs"].values())


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
    to_reach="all queued in ≤ 60 s, `status` answers within 5 s meanwhile, growth of memory ≤ 150 MB",
    feels="An archive can be dropped in as a whole.",
    run=backlog,
)

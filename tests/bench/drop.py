"""From the drop of a document to its visible output, on an idle machine, beside other ways to watch a folder."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.emulated import DEFAULTS, SETTLE
from tests.bench.rows import AT_MOST, Row, milliseconds, ratios
from tests.bench.suite import Bench, Setting
from tests.harness import ROOT, environment, running

DOCUMENTS, QUICK_DOCUMENTS = 40, 10
PEER_DOCUMENTS = 2
"""Each takes seconds."""
GIVE_UP_SECONDS = 30.0
LABELS = {DEFAULTS: "watchfiles with its defaults (emulated)", SETTLE: "5 s of settling as paperless-ngx 3 (emulated)"}


def drop(setting: Setting) -> Iterator[Row]:
    """Ours is the daemon as it is, with everything durable; the others are emulated by `tests.bench.emulated`."""
    folder, documents = Path(setting.folder), setting.sized(DOCUMENTS, QUICK_DOCUMENTS)
    (folder / "ours").mkdir()
    ours: dict[str, list[float]] = {"rename": [], "close": []}
    theirs: dict[str, list[float]] = {way: [] for way in LABELS}
    with (
        running(folder / "ours") as daemon,
        _emulated(DEFAULTS, folder) as defaults,
        _emulated(SETTLE, folder) as settle,
    ):
        daemon.drop("warm-up.html", b"<h1>warm</h1>")
        daemon.outcome("warm-up.html")
        for number in range(setting.rounds):
            for way, put in (("rename", renamed), ("close", closed)):
                values = seconds_to_output(daemon.inbox, daemon.outbox, f"{way}-{number}", documents, put)
                ours[way].append(statistics.median(values))
            for way, (inbox, outbox) in ((DEFAULTS, defaults), (SETTLE, settle)):
                values = seconds_to_output(inbox, outbox, f"{number}", PEER_DOCUMENTS, renamed)
                theirs[way].append(statistics.median(values))
        daemon.stop()
    for way, label in (("rename", "renamed into the folder"), ("close", "written there and closed")):
        values = [1000 * seconds for seconds in ours[way]]
        yield Row(f"drop: {label} → result visible, p50, ms", "", "", values, AT_MOST, target=60, digits=1)
    for way, label in LABELS.items():
        yield Row(
            f"drop: → result visible: {label} / ours",
            milliseconds(ours["rename"]),
            milliseconds(theirs[way]),
            ratios(theirs[way], ours["rename"]),
            digits=1,
        )


def seconds_to_output(
    inbox: Path, outbox: Path, label: str, count: int, put: Callable[[Path, bytes], float]
) -> Sequence[float]:
    """Of small documents, one at a time: from the moment that `put` tells to that at which the Markdown is there."""
    pause = threading.Event()
    took = []
    for number in range(count):
        name = f"{label}-{number:05}.html"
        pause.wait(0.1 + (number * 37 % 50) / 1000)  # idle, and out of step with any polling
        output = str(outbox / f"{name}.md")
        started = put(inbox / name, f"<html><body><h1>{name}</h1><p>Some words to convert.</p></body></html>".encode())
        while not os.path.exists(output):
            assert time.perf_counter() - started < GIVE_UP_SECONDS, f"{output} does not appear"
            pause.wait(0.0005)
        took.append(time.perf_counter() - started)
    return took


def renamed(target: Path, content: bytes) -> float:
    """Put a document there by a rename; the moment before it."""
    hidden = target.parent / ".next.tmp"
    hidden.write_bytes(content)
    moment = time.perf_counter()
    os.rename(hidden, target)
    return moment


def closed(target: Path, content: bytes) -> float:
    """Write a document there; the moment before it is closed."""
    with target.open("wb", buffering=0) as file:
        file.write(content)
        return time.perf_counter()


@contextmanager
def _emulated(way: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """The inbox and the outbox of another way."""
    inbox, outbox = folder / way / "inbox", folder / way / "outbox"
    inbox.mkdir(parents=True)
    outbox.mkdir()
    command = [sys.executable, "-m", "tests.bench.emulated", way, str(inbox), str(outbox)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"ready\n"
            yield inbox, outbox
        finally:
            process.kill()


BENCH = Bench(
    name="drop",
    work="a document renamed into a folder, or written there and closed, until its result is visible; idle",
    against="watchfiles with its defaults, and 5 s of settling as in paperless-ngx 3, both emulated",
    to_reach="p50 ≤ 60 ms",
    feels="The result is there before one has looked.",
    run=drop,
)

"""What an operator's commands cost: `python -m tests.bench.operated [--corpus DIR] [--documents 2000]`.

Eight workers drain N documents twice a round, interleaved in the same run: alone, and with three shells beside them
that run `status --json`, `jobs --json`, `retry --failed`, `pause` and `resume` without a break until all is converted,
however long that takes. Printed are the throughputs and their ratio, the p99 of the commands, that of the job table's
commits (the bucket of /metrics it lies in), and how often anybody was told that the database is busy. Nothing may be
lost: every document has ended in a job and a file. The configuration is the one that operators have who change nothing,
so that pictures in documents are read.

The shells need processor time of their own: what they leave to the daemon on so many cores is printed, too. The daemon
has a session of its own, as under a service manager: kernels that share processors among sessions (autogroup) give
three shells in three terminals, or in the daemon's own, twice as much.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.corpus import copies, originals
from tests.bench.draining import outcomes, seconds_to_last_result
from tests.bench.measure import percentile
from tests.bench.rows import Row, milliseconds, ratios
from tests.bench.suite import Bench, Setting
from tests.harness import Daemon, environment
from tests.servers import free_ports

COMMANDS = (("status", "--json"), ("jobs", "--json"), ("retry", "--failed"), ("pause",), ("resume",))
WAYS = {"alone": 0, "operated": 3}
"""How many shells there are."""
DOCUMENTS, QUICK_DOCUMENTS = 2000, 200
BUSY = ("SQLITE_BUSY", "BusyError", "database is locked")
CONFIG = """
state_dir = "state"
workers = 8
metrics.listen = "127.0.0.1:{port}"
[[watch]]
name = "docs"
source = "inbox"
sink = "outbox"
"""


@dataclass
class Shells:
    """Operators at work: what their commands took, and what they were told."""

    where: list[str]
    folder: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {command[0]: [] for command in COMMANDS})
    complaints: list[str] = field(default_factory=list)

    def loop(self, first: int) -> None:
        """Each shell begins with another command, and ends with `resume`."""
        turn = first
        while not self.stopping.is_set():
            self._run(COMMANDS[turn % len(COMMANDS)])
            turn += 1
        self._run(("resume",))

    def _run(self, command: tuple[str, ...]) -> None:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "daemon", *command, *self.where],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
        )
        self.seconds[command[0]].append(time.perf_counter() - started)
        if done.returncode or any(word in done.stderr for word in BUSY):
            self.complaints.append(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-300:]}")


@contextmanager
def operators(shells: Shells, count: int) -> Iterator[None]:
    """So many shells at work until the block ends."""
    threads = [threading.Thread(target=shells.loop, args=(number * 2,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        shells.stopping.set()
        for thread in threads:
            thread.join()


@dataclass(frozen=True)
class Drained:
    """How a drain went. `shells_cpus` is how many processors the commands took, `commands` what each of them took."""

    documents_per_second: float
    commit_p99_seconds: float
    shells_cpus: float
    commands: dict[str, list[float]]

    def in_words(self) -> str:
        """One line."""
        parts = [
            f"{self.documents_per_second:.1f} documents/s",
            f"commits p99 ≤ {self.commit_p99_seconds * 1e3:.0f} ms",
        ]
        if self.commands:
            parts.append(f"the shells took {self.shells_cpus:.2f} processors")
        for command, times in self.commands.items():
            parts.append(f"{command} p99 {percentile(times, 0.99) * 1e3:.0f} ms of {len(times)}")
        return ", ".join(parts)


def drain(folder: Path, documents: list[Path], shells: int) -> Drained:
    """From the moment all documents are in the inbox of a warm daemon to the last one's end."""
    folder.mkdir()
    port = free_ports(1)[0]
    daemon = Daemon(folder, CONFIG.format(port=port), prefix=("setsid",))
    try:
        daemon.start()
        daemon.drop("warm-up.html", b"<h1>warm</h1>")
        daemon.outcome("warm-up.html")
        staged = folder / "staged"
        staged.mkdir()
        for path in documents:
            os.link(path, staged / path.name)
        loops = Shells(daemon.where, folder)
        os.sync()
        before = children_cpu_seconds()
        os.rename(staged, daemon.inbox / "batch")
        pause = threading.Event()
        with operators(loops, shells):
            while outcomes(daemon) < len(documents):
                pause.wait(0.1)
            taken = seconds_to_last_result(daemon)
        shells_cpus = (children_cpu_seconds() - before) / taken
        commits = commit_p99_seconds(port)
        check_nothing_is_lost(daemon, documents, loops)
        commands = {command: times for command, times in loops.seconds.items() if times}
        return Drained(len(documents) / taken, commits, shells_cpus, commands)
    finally:
        daemon.close()


def check_nothing_is_lost(daemon: Daemon, documents: list[Path], loops: Shells) -> None:
    """Raises AssertionError where a document, a job or a command has gone wrong."""
    assert not loops.complaints, loops.complaints[:5]
    log = daemon.log.read_text()
    assert not any(word in log for word in BUSY), "the daemon has met a busy database"
    ended = {job["source"]: job["state"] for job in daemon.jobs()}
    assert len(ended) == len(documents) + 1, f"{len(ended)} jobs for {len(documents) + 1} documents"
    assert set(ended.values()) <= {"completed", "failed"}, set(ended.values())
    assert daemon.stop() == 0


def commit_p99_seconds(port: int) -> float:
    """The upper bound of the bucket in which the 99th percentile of the job table's commits lies."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "convertd_job_table_commit_duration_seconds_bucket"
    ]
    total = max(count for _, count in buckets)
    return min(bound for bound, count in buckets if count >= 0.99 * total)


def children_cpu_seconds() -> float:
    """Processor time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def operated(setting: Setting) -> Iterator[Row]:
    """Each way comes first in every other round."""
    count, folder = setting.sized(DOCUMENTS, QUICK_DOCUMENTS), Path(setting.folder)
    rounds = [_round(folder / str(number), setting.corpus, count, number) for number in range(setting.rounds)]
    alone, beside = ([row[way] for row in rounds] for way in WAYS)
    rates = [[drained.documents_per_second for drained in way] for way in (beside, alone)]
    yield Row(
        "operated: documents/s beside three shells that never rest / alone",
        f"{statistics.median(rates[0]):.1f}/s",
        f"{statistics.median(rates[1]):.1f}/s",
        ratios(*rates),
        target=0.8,
    )
    cores = len(os.sched_getaffinity(0))
    left = [value * cores / (cores - row.shells_cpus) for value, row in zip(ratios(*rates), beside, strict=True)]
    taken = statistics.median(row.shells_cpus for row in beside)
    yield Row(
        f"operated: the same for each processor that the shells left of {cores}", f"they took {taken:.2f}", "", left
    )
    commits = [[drained.commit_p99_seconds for drained in way] for way in (beside, alone)]
    name = "operated: p99 of the job table's commits, s (upper bound)"
    yield Row(name, milliseconds(commits[0]), milliseconds(commits[1]), commits[0], digits=3)
    p99s = [percentile([second for times in drained.commands.values() for second in times], 0.99) for drained in beside]
    yield Row("operated: p99 of the commands, s", milliseconds(p99s), "", p99s)


def _round(folder: Path, corpus: Path | None, count: int, number: int) -> dict[str, Drained]:
    """Both ways, the other one first each time."""
    folder.mkdir()
    (folder / "documents").mkdir()
    documents = copies(originals(folder / "made", corpus), count, folder / "documents")
    order = list(WAYS) if number % 2 == 0 else list(reversed(WAYS))
    return {way: drain(folder / way, documents, WAYS[way]) for way in order}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    found = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as place:
            row = _round(Path(place) / "round", arguments.corpus, arguments.documents, number)
        for way in WAYS:
            print(f"round {number}, {way}: {row[way].in_words()}", flush=True)
        found.append(row["operated"].documents_per_second / row["alone"].documents_per_second)
    print(f"throughput operated / alone, median: {statistics.median(found):.2f}; nothing lost, nobody met a busy table")


BENCH = Bench(
    name="operated",
    work="2,000 documents with 8 workers, beside three shells that loop `status`, `jobs`, `retry --failed`, `pause`, "
    "`resume` without a break",
    against="the same without them",
    to_reach="≥ 0.8 of the throughput, 0 BUSY, nothing lost",
    feels="Whoever looks after it, or scripts that do, may ask as often as they like.",
    run=operated,
)

if __name__ == "__main__":
    main()

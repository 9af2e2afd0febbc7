"""What an operator's commands cost: `python -m tests.bench.operated --corpus DIR [--documents 2000] [--rounds 1]`.

Eight workers drain N documents (the corpus cycled, without its OCR set) twice a round, interleaved in the same run:
alone, and with three shells beside them that run `status --json`, `jobs --json`, `retry --failed`, `pause` and `resume`
without a break for a minute (`--seconds`) or until all is converted. Printed are the throughputs and their ratio, the
p99 of the commands, that of the job table's commits (the bucket of /metrics it lies in), and how often anybody was told
that the database is busy. Nothing may be lost: every document has ended in a job and a file.

The shells need processor time of their own: what they leave to the daemon on so many cores is printed, too.
"""

from __future__ import annotations

import argparse
import json
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
from tests.bench.draining import outcomes
from tests.bench.measure import percentile
from tests.harness import Daemon, environment
from tests.servers import free_ports

COMMANDS = (("status", "--json"), ("jobs", "--json"), ("retry", "--failed"), ("pause",), ("resume",))
SHELLS = 3
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
def operators(shells: Shells, count: int, seconds: float) -> Iterator[None]:
    """So many shells at work until the block ends or the time is over."""
    threads = [threading.Thread(target=shells.loop, args=(number * 2,)) for number in range(count)]
    timer = threading.Timer(seconds, shells.stopping.set)
    timer.start()
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        shells.stopping.set()
        timer.cancel()
        for thread in threads:
            thread.join()


def drain(folder: Path, documents: list[Path], shells: int, seconds: float) -> dict[str, float]:
    """Throughput from the moment all documents are in the inbox of a warm daemon, and what else was seen."""
    folder.mkdir()
    port = free_ports(1)[0]
    daemon = Daemon(folder, CONFIG.format(port=port))
    try:
        daemon.start()
        daemon.drop("warm-up.html", b"<h1>warm</h1>")
        daemon.outcome("warm-up.html")
        staged = folder / "staged"
        staged.mkdir()
        for path in documents:
            os.link(path, staged / path.name)
        loops = Shells(daemon.where, folder)
        before, started = children_cpu_seconds(), time.perf_counter()
        os.rename(staged, daemon.inbox / "batch")
        pause = threading.Event()
        with operators(loops, shells, seconds):
            while outcomes(daemon) < len(documents):
                pause.wait(0.1)
            taken = time.perf_counter() - started
        spent = (children_cpu_seconds() - before) / taken
        commits = commit_p99_seconds(port)
        check_nothing_is_lost(daemon, documents, loops)
        row = {"documents_per_second": len(documents) / taken, "commit_p99_seconds": commits, "shells_cpus": spent}
        for command, times in loops.seconds.items():
            if times:
                row[f"{command}_p99_seconds"] = percentile(times, 0.99)
                row[f"{command}_count"] = len(times)
        return row
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "documents").mkdir()
            documents = copies(originals(folder / "made", arguments.corpus), arguments.documents, folder / "documents")
            ways = {"alone": 0, "operated": SHELLS}
            order = list(ways) if number % 2 == 0 else list(reversed(ways))
            row = {way: drain(folder / way, documents, ways[way], arguments.seconds) for way in order}
        rounds.append(row)
        for way in ways:
            print(f"round {number}, {way}: " + "  ".join(f"{key} {value:.3g}" for key, value in row[way].items()))
    ratio = statistics.median(
        row["operated"]["documents_per_second"] / row["alone"]["documents_per_second"] for row in rounds
    )
    print(f"throughput operated / alone, median: {ratio:.2f}; nothing lost, nobody met a busy database")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=2))


if __name__ == "__main__":
    main()

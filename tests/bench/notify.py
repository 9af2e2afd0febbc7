"""What notifications cost: `python -m tests.bench.notify [--documents 400] [--rounds 3] [--json FILE]`.

The daemon drains N small documents three times a round, interleaved in the same run: with nobody to be told, with a
webhook that takes every request and never answers, and with one that answers at once, each of them first in turn.
Printed are documents per second, the processor time of the daemon per document (its converters' is not in it, and what
else the machine does hardly is), and the ratios to the first way. Documents of a few bytes make events weigh the most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.drain import outcomes
from tests.harness import Daemon
from tests.receiver import HANG, Receiver, receiving

WAYS = {"nobody": None, "hangs": HANG, "answers": 204}


class Drained(NamedTuple):
    """How a drain went."""

    documents_per_second: float
    daemon_milliseconds: float
    """Of processor time, per document."""


def drain(folder: Path, documents: int, receiver: Receiver | None) -> Drained:
    """From the moment all documents are in the inbox of a warm daemon to the end of the last."""
    folder.mkdir()
    webhook = f'notify.webhook = "{receiver.url}"\n' if receiver else ""
    watch = '[[watch]]\nname = "docs"\nsource = "inbox"\nsink = "outbox"\n'
    daemon = Daemon(folder, f'state_dir = "state"\n{webhook}{watch}')
    try:
        daemon.start()
        daemon.drop("warm-up.html", b"<h1>warm</h1>")
        daemon.outcome("warm-up.html")
        staged = folder / "staged"
        staged.mkdir()
        for number in range(documents):
            (staged / f"{number:05}.html").write_text(f"<h1>{number}</h1><p>some words")
        assert daemon.process is not None
        used, started = cpu_seconds(daemon.process.pid), time.perf_counter()
        os.rename(staged, daemon.inbox / "batch")
        pause = threading.Event()
        while outcomes(daemon) < documents:
            pause.wait(0.05)
        seconds = time.perf_counter() - started
        used = cpu_seconds(daemon.process.pid) - used
        daemon.kill()
        return Drained(documents / seconds, used / documents * 1000)
    finally:
        daemon.close()


def told(folder: Path, documents: int, status: int | None) -> Drained:
    """A drain with a receiver that behaves like this, or without any."""
    if status is None:
        return drain(folder, documents, None)
    with receiving(status) as receiver:
        return drain(folder, documents, receiver)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds: list[dict[str, Drained]] = []
    for number in range(arguments.rounds):
        ways = list(WAYS)[number % len(WAYS) :] + list(WAYS)[: number % len(WAYS)]
        with tempfile.TemporaryDirectory() as place:
            rounds.append({way: told(Path(place) / way, arguments.documents, WAYS[way]) for way in ways})
        shown = [f"{way} {rounds[-1][way][0]:.1f}/s {rounds[-1][way][1]:.2f} ms" for way in WAYS]
        print(f"round {number}: " + "  ".join(shown), flush=True)
    for way in ("hangs", "answers"):
        for index, what in enumerate(("throughput", "processor time of the daemon")):
            ratio = statistics.median(row[way][index] / row["nobody"][index] for row in rounds)
            print(f"{what} with a webhook that {way} / without, median: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=2))


if __name__ == "__main__":
    main()

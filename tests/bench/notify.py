"""What notifications cost: `python -m tests.bench.notify [--documents 400] [--rounds 3] [--json FILE]`.

The daemon drains N small documents three times a round, interleaved in the same run: with nobody to be told, with a
webhook that takes every request and never answers, and with one that answers at once. Printed are documents per second
and the ratios to the first. Documents of a few bytes make the events weigh the most.
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

from tests.bench.drain import outcomes
from tests.harness import Daemon
from tests.receiver import HANG, Receiver, receiving

WAYS = {"nobody": None, "hangs": HANG, "answers": 204}


def drain(folder: Path, documents: int, receiver: Receiver | None) -> float:
    """Documents per second from the moment they are all in the inbox of a warm daemon to the end of the last."""
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
        started = time.perf_counter()
        os.rename(staged, daemon.inbox / "batch")
        pause = threading.Event()
        while outcomes(daemon) < documents:
            pause.wait(0.05)
        seconds = time.perf_counter() - started
        daemon.kill()
        return documents / seconds
    finally:
        daemon.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds = []
    for number in range(arguments.rounds):
        row = {}
        with tempfile.TemporaryDirectory() as place:
            for way, status in WAYS.items():
                if status is None:
                    row[way] = drain(Path(place) / way, arguments.documents, None)
                else:
                    with receiving(status) as receiver:
                        row[way] = drain(Path(place) / way, arguments.documents, receiver)
        rounds.append(row)
        print(f"round {number}: " + "  ".join(f"{way} {speed:.1f}/s" for way, speed in row.items()), flush=True)
    for way in ("hangs", "answers"):
        ratio = statistics.median(row[way] / row["nobody"] for row in rounds)
        print(f"throughput with a webhook that {way} / without, median: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=2))


if __name__ == "__main__":
    main()

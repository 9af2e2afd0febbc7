"""What notifications cost: `python -m tests.bench.notify [--corpus DIR] [--documents 400] [--rounds 3]`.

The daemon drains N small documents, or those of a corpus, four times a round, interleaved in the same run: with nobody
to be told, with a webhook that takes every request and never answers, with one that answers 500, hangs and is down,
each for a quarter of the drain, and then takes what it is told, and with one that answers at once; each of them first
in turn. Where it answers in the end, every event must have arrived.
Printed are documents per second, the processor time of the daemon per document (its converters' is not in it, and what
else the machine does hardly is), and the ratios to the first way. Documents of a few bytes make events weigh the most.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.corpus import copies
from tests.bench.draining import outcomes, seconds_to_last_result
from tests.bench.measure import corpus_documents, cpu_seconds
from tests.bench.rows import Row
from tests.bench.suite import Bench, Setting
from tests.harness import Daemon, until
from tests.receiver import HANG, Receiver, receiving

DOCUMENTS = 400
TROUBLED = 500
WAYS = {"nobody": None, "hangs": HANG, "is troubled": TROUBLED, "answers": 204}
ARRIVED_SECONDS = 180.0


class Drained(NamedTuple):
    """How a drain went."""

    documents_per_second: float
    daemon_milliseconds: float
    """Of processor time, per document."""


class Troubles:
    """What a receiver goes through while others convert, a quarter of the drain each."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._left = [self._hang, receiver.stop, self._mend]

    def go_on(self, share: float) -> None:
        """So much of the drain is done."""
        while self._left and share >= 1 - len(self._left) / 4:
            self._left.pop(0)()

    def _hang(self) -> None:
        self._receiver.status = HANG

    def _mend(self) -> None:
        self._receiver.status = 204
        self._receiver.start()


def drain(folder: Path, documents: int, receiver: Receiver | None, corpus: Path | None = None) -> Drained:
    """From the moment all documents are in the inbox of a warm daemon to the end of the last."""
    troubles = Troubles(receiver) if receiver and receiver.status == TROUBLED else None
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
        if corpus:
            copies(corpus_documents(corpus), documents, staged)
        else:
            for number in range(documents):
                (staged / f"{number:05}.html").write_text(f"<h1>{number}</h1><p>some words")
        assert daemon.process is not None
        os.sync()
        used = cpu_seconds(daemon.process.pid)
        os.rename(staged, daemon.inbox / "batch")
        pause = threading.Event()
        while (ended := outcomes(daemon)) < documents:
            if troubles:
                troubles.go_on(ended / documents)
            pause.wait(0.05)
        used = cpu_seconds(daemon.process.pid) - used
        seconds = seconds_to_last_result(daemon)
        if troubles:
            troubles.go_on(1.0)
        if receiver and receiver.status != HANG:
            until(lambda: told_of(receiver) == documents + 1, "every event has arrived", ARRIVED_SECONDS)
        daemon.kill()
        return Drained(documents / seconds, used / documents * 1000)
    finally:
        daemon.close()


def told_of(receiver: Receiver) -> int:
    """How many documents it knows the end of."""
    return len({event["source"] for event in receiver.events})


def told(folder: Path, documents: int, status: int | None, corpus: Path | None) -> Drained:
    """A drain with a receiver that behaves like this, or without any."""
    if status is None:
        return drain(folder, documents, None, corpus)
    with receiving(status) as receiver:
        return drain(folder, documents, receiver, corpus)


def notify(setting: Setting) -> Iterator[Row]:
    """A webhook that never answers, or is in trouble, must cost nothing."""
    documents = setting.sized(DOCUMENTS, DOCUMENTS // 4)
    rounds = [_round(Path(setting.folder) / str(number), documents, number) for number in range(setting.rounds)]
    for way, target in (("hangs", 0.9), ("is troubled", 0.9), ("answers", None)):
        yield Row(
            f"notify: documents/s with a webhook that {way} / without",
            _rate(rounds, way),
            _rate(rounds, "nobody"),
            [row[way].documents_per_second / row["nobody"].documents_per_second for row in rounds],
            target=target,
        )


def _rate(rounds: list[dict[str, Drained]], way: str) -> str:
    return f"{statistics.median(row[way].documents_per_second for row in rounds):.1f}/s"


def _round(place: Path, documents: int, number: int, corpus: Path | None = None) -> dict[str, Drained]:
    """All ways, another one first each time."""
    place.mkdir()
    ways = list(WAYS)[number % len(WAYS) :] + list(WAYS)[: number % len(WAYS)]
    return {way: told(place / way, documents, WAYS[way], corpus) for way in ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rounds: list[dict[str, Drained]] = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as place:
            rounds.append(_round(Path(place) / "round", arguments.documents, number, arguments.corpus))
        shown = [f"{way} {rounds[-1][way][0]:.1f}/s {rounds[-1][way][1]:.2f} ms" for way in WAYS]
        print(f"round {number}: " + "  ".join(shown), flush=True)
    for way in [way for way in WAYS if way != "nobody"]:
        for index, what in enumerate(("throughput", "processor time of the daemon")):
            ratio = statistics.median(row[way][index] / row["nobody"][index] for row in rounds)
            print(f"{what} with a webhook that {way} / without, median: {ratio:.2f}")


BENCH = Bench(
    name="notify",
    work="a backlog with a webhook that never answers, and with one that fails, hangs, is down, and then takes all",
    against="the same with nobody to be told",
    to_reach="≥ 0.9 of the throughput, every event arrives",
    feels="Whoever is to be told, and does not listen, holds nothing up.",
    run=notify,
)

if __name__ == "__main__":
    main()

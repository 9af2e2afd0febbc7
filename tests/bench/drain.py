"""Draining a backlog: `python -m tests.bench.drain [--corpus DIR] [--documents 500] [--rounds 3] [--json FILE]`.

The daemon drains N documents (the corpus cycled, without its OCR set, and with OCR off) and, interleaved in the same
run, the bare engines convert the same list with the same routing in as many processes, reading from disk and writing
the Markdown without any sync. Printed are documents per second, the ratio, and the memory of daemon and children after
the drain.
The suite compares with markitdown as well, and has OCR in a row of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import corpus
from tests.bench.draining import AUTO, OFF, Drained, drained
from tests.bench.pulling import MARKITDOWN, Pulled, bare, pulled
from tests.bench.rows import Row, ratios
from tests.bench.suite import Bench, Setting

DOCUMENTS, QUICK_DOCUMENTS = 500, 160
SCANS, QUICK_SCANS = 24, 6
TIMES_EACH = 3
"""How often markitdown is given each document. It takes seven seconds for those of the corpus, ours half a one, of
which the time in which only one process still has a document is a large part."""


def drain(setting: Setting) -> Iterator[Row]:
    """Ours and the bare engines on the whole list, without OCR. Markitdown, which knows none and is slow, has a shorter
    one, and ours beside it the same: each document three times."""
    with tempfile.TemporaryDirectory(dir=setting.folder) as place:
        found = corpus.originals(Path(place) / "made", setting.corpus)
        count = setting.sized(DOCUMENTS, QUICK_DOCUMENTS)
        documents = corpus.copies(found, count, _new(place, "documents"))
        few = corpus.copies(found, min(TIMES_EACH * len(found), count), _new(place, "few"))
        ours, alone, others, beside_others = defaultdict(list), defaultdict(list), [], []
        for number in range(setting.rounds):
            folder = _round(place, number)
            for turn in range(4):
                if (way := (turn + number) % 4) == 0:
                    for workers in _workers():
                        ours[workers].append(drained(documents, folder / f"daemon-{workers}", workers))
                elif way == 1:
                    for workers in _workers():
                        outbox = _new(folder, f"bare-{workers}")
                        alone[workers].append(pulled(bare(OFF), documents, outbox, workers))
                elif way == 2:
                    others.append(pulled(MARKITDOWN, few, _new(folder, "other"), _processors()))
                else:
                    beside_others.append(drained(few, folder / "daemon-beside-other"))
    for workers in _workers():
        yield _beside_bare(f"drain: {count} mixed documents", ours[workers], alone[workers], count, workers)
    converted = f"{others[0].converted} of {len(few)} converted"
    yield Row(
        f"drain: {len(few)} mixed documents, none to be read by OCR: ours / markitdown ({converted})",
        _rate([len(few) / one.seconds for one in beside_others]),
        _rate([len(few) / one.seconds for one in others]),
        ratios((one.seconds for one in others), (one.seconds for one in beside_others)),
        target=10,
    )


def drain_scans(setting: Setting) -> Iterator[Row]:
    """Scans and photos, which are read by OCR; each way comes first in every other round."""
    with tempfile.TemporaryDirectory(dir=setting.folder) as place:
        count = setting.sized(SCANS, QUICK_SCANS)
        documents = corpus.copies(corpus.scans(Path(place) / "made", setting.corpus), count, _new(place, "documents"))
        ours, alone = [], []
        for number in range(setting.rounds):
            folder = _round(place, number)
            for turn in range(2):
                if (turn + number) % 2 == 0:
                    alone.append(pulled(bare(AUTO), documents, _new(folder, "bare"), _processors()))
                else:
                    ours.append(drained(documents, folder / "daemon", ocr=AUTO))
    yield _beside_bare(f"drain-ocr: {count} scans", ours, alone, count, _processors())


def _beside_bare(label: str, ours: Sequence[Drained], alone: Sequence[Pulled], count: int, workers: int) -> Row:
    return Row(
        f"{label}, {workers} {'worker' if workers == 1 else 'workers'} on {_processors()} processors: "
        "ours / bare engines in as many processes, unsynced",
        _rate([count / one.seconds for one in ours]),
        _rate([count / one.seconds for one in alone]),
        ratios((one.seconds for one in alone), (one.seconds for one in ours)),
        target=0.9,
    )


def _rate(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):.1f}/s"


def _workers() -> list[int]:
    """As many as processors, as the daemon has by default; and half as many, so that some are to spare."""
    return sorted({max(1, _processors() // 2), _processors()}, reverse=True)


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _round(place: str, number: int) -> Path:
    """The folder of a round, which stays until the last one is over. For minutes ext4 gives the inodes of what was
    deleted to nobody, and looks at each of them again for every file that is made: the next round would measure that.
    """
    return _new(place, f"round-{number}")


def _new(place: str | Path, name: str) -> Path:
    folder = Path(place) / name
    folder.mkdir()
    return folder


DRAIN = Bench(
    name="drain",
    work="500 mixed documents through the daemon, everything durable; as many workers as processors, and half as many",
    against="the bare engines in as many processes by the same routing, output unsynced; markitdown",
    to_reach="≥ 0.9 of the bare engines; ≥ 10 times markitdown",
    feels="What convertd guards against is felt where documents take their engine milliseconds, and not where seconds.",
    run=drain,
    needs=("markitdown",),
)
SCANNED = Bench(
    name="drain-ocr",
    work="scans and photos through the daemon, N workers",
    against="the bare engines in N processes",
    to_reach="≥ 0.9 of the bare engines",
    feels="A pile of scans is read as fast as the machine can read.",
    run=drain_scans,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as place:
        found = corpus.originals(Path(place) / "made", arguments.corpus)
        documents = corpus.copies(found, arguments.documents, _new(place, "documents"))
        for number in range(arguments.rounds):
            folder = _round(place, number)
            bare_seconds = pulled(bare(OFF), documents, _new(folder, "bare"), _processors()).seconds
            ours = drained(documents, folder / "daemon")
            row = {
                "bare_seconds": bare_seconds,
                "seconds": ours.seconds,
                "daemon_mib": ours.memory[-1].daemon_bytes / 2**20,
                "children_mib": ours.memory[-1].children_bytes / 2**20,
                "ratio": bare_seconds / ours.seconds,
            }
            rounds.append(row)
            print(f"round {number}: " + "  ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
    ratio = statistics.median(row["ratio"] for row in rounds)
    print(f"throughput of the daemon / bare engines, median: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=2))


if __name__ == "__main__":
    main()

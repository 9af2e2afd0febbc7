"""The same backlog with one, two, four and eight workers."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench import corpus
from tests.bench.draining import Drained, drained
from tests.bench.rows import EXACTLY, Row, ratios
from tests.bench.suite import Bench, Setting

DOCUMENTS, QUICK_DOCUMENTS = 400, 120
FEW, MANY = (1, 2), (4, 8)
TARGET = 1.0


def workers(setting: Setting) -> Iterator[Row]:
    """All numbers of workers in turn in each round."""
    with tempfile.TemporaryDirectory(dir=setting.folder) as place:
        folder = Path(place)
        (folder / "documents").mkdir()
        count = setting.sized(DOCUMENTS, QUICK_DOCUMENTS)
        documents = corpus.copies(corpus.originals(folder / "made", setting.corpus), count, folder / "documents")
        results: dict[int, list[Drained]] = {number: [] for number in (*FEW, *MANY)}
        for turn in range(setting.rounds):
            order = [*FEW, *MANY] if turn % 2 == 0 else [*reversed(MANY), *reversed(FEW)]
            for number in order:
                # Their folders stay until the last: what is deleted slows down those who make files soon after it.
                results[number].append(drained(documents, folder / f"{turn}-{number}", number))
    for many in MANY:
        for few in FEW:
            yield Row(
                f"workers: {count} documents, {many} workers / {few}",
                _rate(results[many], count),
                _rate(results[few], count),
                ratios((one.seconds for one in results[few]), (one.seconds for one in results[many])),
                target=TARGET,
            )
    for number, found in results.items():
        held = [max(one.daemon_bytes + one.children_bytes for one in each.memory) / 2**20 for each in found]
        yield Row(f"workers: {number}: most memory of daemon and converters, MiB", "", "", held, digits=0)
    busy = [float(one.busy) for found in results.values() for one in found]
    yield Row("workers: BUSY answers of the job table", "", "", busy, EXACTLY, target=0, digits=0)


def _rate(found: list[Drained], count: int) -> str:
    return f"{count / statistics.median(one.seconds for one in found):.1f}/s"


BENCH = Bench(
    name="workers",
    work="400 documents with 4 and 8 workers",
    against="1 and 2 workers",
    to_reach="no loss (≥ 1 times as many a second), 0 BUSY",
    feels="Too many workers do no harm: nobody has to find out the right number.",
    run=workers,
)

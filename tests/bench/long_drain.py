"""Memory of daemon and converters over a long backlog."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import corpus
from tests.bench.draining import Drained, Memory, drained
from tests.bench.rows import AT_MOST, Row
from tests.bench.suite import Bench, Setting

DOCUMENTS, QUICK_DOCUMENTS = 5000, 1500
WARM = 500
"""After so many everything is loaded."""
PARTS: dict[str, Callable[[Memory], int]] = {
    "daemon": lambda memory: memory.daemon_bytes,
    "converters": lambda memory: memory.children_bytes,
}


def long_drain(setting: Setting) -> Iterator[Row]:
    """The last documents beside those after the first 500; converters are replaced now and then, so that medians over
    as many documents as that takes are compared."""
    count = setting.sized(DOCUMENTS, QUICK_DOCUMENTS)
    window = setting.sized(1000, 400)
    drains = []
    with tempfile.TemporaryDirectory(dir=setting.folder) as place:
        folder = Path(place)
        (folder / "documents").mkdir()
        documents = corpus.copies(corpus.originals(folder / "made", setting.corpus), count, folder / "documents")
        for _ in range(setting.rounds):
            with tempfile.TemporaryDirectory(dir=place) as round_folder:
                drains.append(drained(documents, Path(round_folder)))
    for part, what in PARTS.items():
        early = [one.memory_between(WARM, WARM + window, what) for one in drains]
        late = [one.memory_between(count - window, count, what) for one in drains]
        yield Row(
            f"long-drain: {count:,} documents: memory of the {part} at the end / after the first {WARM}",
            _mib(late),
            _mib(early),
            [after / before for after, before in zip(late, early, strict=True)],
            AT_MOST,
            target=1.1,
        )
    yield Row("long-drain: documents/s", "", "", [_rate(one, count) for one in drains], digits=1)


def _rate(one: Drained, count: int) -> float:
    return count / one.seconds


def _mib(values: list[float]) -> str:
    return f"{statistics.median(values) / 2**20:.0f} MiB"


BENCH = Bench(
    name="long-drain",
    work="memory of daemon and converters over 5,000 documents",
    against="the same after the first 500",
    to_reach="growth ≤ 10 %",
    feels="It may run for months.",
    run=long_drain,
)

"""Memory of daemon and converters over a long backlog."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench import corpus
from tests.bench.draining import Drained, Memory, drained
from tests.bench.rows import AT_MOST, Row, ratios
from tests.bench.suite import Bench, Setting

DOCUMENTS, QUICK_DOCUMENTS = 5000, 1500
WARM = 500
"""After so many everything is loaded."""
WINDOW = 200
"""Over so many documents a median is taken: what grows meanwhile is hidden in it."""
MEMORY_SECONDS = 0.1
PARTS: dict[str, Callable[[Memory], int]] = {
    "daemon": lambda memory: memory.daemon_bytes,
    "converters": lambda memory: memory.children_bytes,
}


def long_drain(setting: Setting) -> Iterator[Row]:
    """The last 200 documents beside the first 200 after the first 500. A converter is replaced after 500 documents:
    with two of them, those of the beginning have converted some 300 each, those of the end nearly 500. What both hold
    at most in between is told, too."""
    count = setting.sized(DOCUMENTS, QUICK_DOCUMENTS)
    drains = []
    with tempfile.TemporaryDirectory(dir=setting.folder) as place:
        folder = Path(place)
        (folder / "documents").mkdir()
        documents = corpus.copies(corpus.originals(folder / "made", setting.corpus), count, folder / "documents")
        for _ in range(setting.rounds):
            with tempfile.TemporaryDirectory(dir=place) as round_folder:
                drains.append(drained(documents, Path(round_folder), memory_seconds=MEMORY_SECONDS))
    for part, what in PARTS.items():
        early = [one.memory_between(WARM, WARM + WINDOW, what) for one in drains]
        late = [one.memory_between(count - WINDOW, count, what) for one in drains]
        yield Row(
            f"long-drain: {count:,} documents: memory of the {part} at the end / after the first {WARM}",
            _mib(late),
            _mib(early),
            ratios(late, early),
            AT_MOST,
            target=1.1,
        )
        most = [one.most_memory(WARM, what) for one in drains]
        yield Row(
            f"long-drain: {count:,} documents: most memory of the {part} / after the first {WARM}",
            _mib(most),
            _mib(early),
            ratios(most, early),
        )
    yield Row("long-drain: documents/s", "", "", [_rate(one, count) for one in drains], digits=1)


def _rate(one: Drained, count: int) -> float:
    return count / one.seconds


def _mib(values: Sequence[float]) -> str:
    return f"{statistics.median(values) / 2**20:.0f} MiB"


BENCH = Bench(
    name="long-drain",
    work="memory of daemon and converters over 5,000 documents",
    against="the same after the first 500",
    to_reach="growth ≤ 10 %",
    feels="It may run for months.",
    run=long_drain,
)

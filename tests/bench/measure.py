"""What the benchmarks share: percentiles, memory of processes, documents to work on."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SAMPLE_SECONDS = 0.002


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def private_bytes(pid: int) -> int:
    """RssAnon plus RssShmem of a process: what it holds for itself."""
    kilobytes = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024


@contextlib.contextmanager
def sampled(look: Callable[[], int], highest: list[int], seconds: float = SAMPLE_SECONDS) -> Iterator[None]:
    """Keep the highest value of `look` in `highest[0]` while the block runs."""
    over = threading.Event()

    def watch() -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while not over.wait(seconds):
                highest[0] = max(highest[0], look())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def corpus_documents(corpus: Path, *, without: Sequence[str] = ()) -> list[Path]:
    """The documents of a corpus folder, sorted, but for the sets (first folders) named."""
    found = []
    for folder, _, names in os.walk(corpus):
        relative = Path(folder).relative_to(corpus)
        if relative.parts and relative.parts[0] in without:
            continue
        found += [Path(folder) / name for name in names]
    return sorted(found)

"""A document of 50 MB as the daemon and the converter read it, against joining what 64 KB at a time gives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from daemon.converters.base import Document
from daemon.converters.child import mapped
from daemon.files import pieces
from tests.bench.rows import Row, milliseconds, ratios
from tests.bench.suite import Bench, Setting

SIZE_BYTES = 50_000_000
CHUNK_BYTES = 64 << 10
MORE_ROUNDS = 4
"""One read takes a hundredth of a second, and what else the machine does shows."""


def reading(setting: Setting) -> Iterator[Row]:
    """A file of the disk whose pages the kernel has, as those of a document that was just written or spooled."""
    path = os.path.join(setting.folder, "document")
    with open(path, "wb") as file:
        file.write(os.urandom(SIZE_BYTES))
    fd = os.open(path, os.O_RDONLY)
    ways = {"reused": _reused, "bytes": _as_bytes, "joined": _joined}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(setting.rounds * MORE_ROUNDS):
        for name, way in ways.items():
            took[name].append(_seconds(way, fd))
    os.close(fd)
    for name, label, target in (
        ("reused", "into a reused buffer", 5.0),
        ("bytes", "as bytes, for an engine that takes nothing else", 1.9),
    ):
        yield Row(
            f"reading: 50 MB {label} / 64 KB chunks joined",
            milliseconds(took[name]),
            milliseconds(took["joined"]),
            ratios(took["joined"], took[name]),
            target=target,
        )


def _seconds(way: Callable[[int], int], fd: int) -> float:
    os.lseek(fd, 0, os.SEEK_SET)
    begun = time.perf_counter()
    size = way(fd)
    seconds = time.perf_counter() - begun
    assert size == SIZE_BYTES
    return seconds


def _reused(fd: int) -> int:
    """As the daemon reads what it takes a digest of."""
    return sum(len(piece) for piece in pieces(fd))


def _as_bytes(fd: int) -> int:
    """As the converter child gives it to an engine that takes bytes only."""
    with mapped(fd, SIZE_BYTES) as data:
        return len(Document("document.bin", data, "pdf").content)


def _joined(fd: int) -> int:
    chunks = []
    while chunk := os.read(fd, CHUNK_BYTES):
        chunks.append(chunk)
    return len(b"".join(chunks))


BENCH = Bench(
    name="reading",
    work="a spooled or local file of 50 MB read into a reused buffer, and as bytes",
    against="chunks of 64 KB, joined",
    to_reach="≥ 5 and ≥ 1.9 times as fast",
    feels="Large documents cost the machine their conversion, not their being read.",
    run=reading,
)

"""Rows `stream` and `medium`: an object to what a converter reads."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.bench.link import serving
from tests.bench.rows import AT_MOST, EXACTLY, Row, megabytes, milliseconds, ratios
from tests.bench.s3_fetch import (
    BY_BOTO,
    DOWNLOAD_FILE,
    IN_MEMORY,
    RAW_IN_MEMORY,
    RAW_SPOOLED,
    SPOOLED,
    Measured,
    Ways,
    measured,
)
from tests.bench.suite import Bench, Setting

MEDIUM_BYTES = 50_000_000
LINK = ("--rate", "60000000", "--first-byte-seconds", "0.03")
MORE_ROUNDS = 3
"""A fetch over the loopback takes a twentieth of a second, and what else the machine does shows: so many times the
rounds."""


@dataclass(frozen=True)
class _Size:
    bytes: int
    name: str
    ways: tuple[str, ...]


_SIZES = (
    _Size(100_000_000, "100 MB", (SPOOLED, IN_MEMORY)),
    _Size(1_000_000_000, "1 GB", (SPOOLED,)),
)
_LABELS = {SPOOLED: "streamed to the spool", IN_MEMORY: "in memory"}
_RAW = {SPOOLED: RAW_SPOOLED, IN_MEMORY: RAW_IN_MEMORY}


def stream(setting: Setting) -> Iterator[Row]:
    """100 MB and 1 GB over a link that gives each connection 60 MB/s, and over the loopback; and the memory used."""
    rounds, folder = setting.rounds, setting.folder
    for size in setting.sized(_SIZES, _SIZES[:1]):
        with serving("--size", str(size.bytes), *LINK) as link, serving("--size", str(size.bytes)) as loopback:
            ways = Ways(link, folder, size.bytes)
            ways.check()
            yield from _link_rows(size, times(ways, (*size.ways, BY_BOTO, DOWNLOAD_FILE), rounds))
            ways = Ways(loopback, folder, size.bytes)
            ways.check()
            raw = [_RAW[way] for way in size.ways]
            often = rounds * (MORE_ROUNDS if size is _SIZES[0] else 1)
            yield from _loopback_rows(size, times(ways, (*size.ways, *raw, BY_BOTO, DOWNLOAD_FILE), often))
            # Over the link there are most connections at once; the baseline has one, and needs the same anywhere.
            places = {**dict.fromkeys((*size.ways, DOWNLOAD_FILE), link), BY_BOTO: loopback}
            yield from _memory_rows(size, in_children(places, folder, size, rounds))


def medium(setting: Setting) -> Iterator[Row]:
    """50 MB over the loopback, which go through no file."""
    rounds, folder = setting.rounds, setting.folder
    size = _Size(MEDIUM_BYTES, "50 MB", (IN_MEMORY,))
    with serving("--size", str(MEDIUM_BYTES)) as url:
        ways = Ways(url, folder, MEDIUM_BYTES)
        ways.check()
        took = times(ways, (IN_MEMORY, BY_BOTO), rounds * MORE_ROUNDS)
        yield Row(
            "medium: 50 MB, loopback: in memory / read, write, read",
            milliseconds(took[IN_MEMORY]),
            milliseconds(took[BY_BOTO]),
            ratios(took[BY_BOTO], took[IN_MEMORY]),
            target=2.2,
        )
        grew = in_children({IN_MEMORY: url, BY_BOTO: url}, folder, size, rounds)
        written = {way: [one.written_bytes for one in of_way] for way, of_way in grew.items()}
        yield Row(
            "medium: 50 MB: bytes written to disk",
            megabytes(written[IN_MEMORY]),
            megabytes(written[BY_BOTO]),
            [float(count) for count in written[IN_MEMORY]],
            EXACTLY,
            target=0,
            digits=0,
        )


def times(ways: Ways, names: tuple[str, ...], rounds: int) -> dict[str, list[float]]:
    """The seconds of each way, all ways in turn in each round."""
    took: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            took[name].append(ways.named[name]())
    return took


def in_children(urls: Mapping[str, str], folder: str, size: _Size, rounds: int) -> dict[str, list[Measured]]:
    """Each way in fresh processes, all ways in turn in each round; `urls` says from where."""
    found: dict[str, list[Measured]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, url in urls.items():
            found[name].append(measured(name, url, folder, size.bytes))
    return found


def _link_rows(size: _Size, took: dict[str, list[float]]) -> Iterator[Row]:
    for way in size.ways:
        label = f"stream: {size.name}, 60 MB/s a connection: {_LABELS[way]}"
        ours = milliseconds(took[way])
        by_boto, downloaded = took[BY_BOTO], took[DOWNLOAD_FILE]
        yield Row(f"{label} / read, write, read", ours, milliseconds(by_boto), ratios(by_boto, took[way]), target=6)
        yield Row(
            f"{label} / download_file",
            ours,
            milliseconds(downloaded),
            ratios(downloaded, took[way]),
            target=1.5,
        )


def _loopback_rows(size: _Size, took: dict[str, list[float]]) -> Iterator[Row]:
    for way in size.ways:
        label = f"stream: {size.name}, loopback: {_LABELS[way]}"
        ours = milliseconds(took[way])
        for name, other, target in (
            ("bare socket to such a file", took[_RAW[way]], 0.85),
            ("read, write, read", took[BY_BOTO], None),
            ("download_file", took[DOWNLOAD_FILE], None),
        ):
            yield Row(f"{label} / {name}", ours, milliseconds(other), ratios(other, took[way]), target=target)


def _memory_rows(size: _Size, grew: dict[str, list[Measured]]) -> Iterator[Row]:
    memory = {way: [one.memory_bytes for one in of_way] for way, of_way in grew.items()}
    baseline = statistics.median(memory[BY_BOTO])
    for way, label in ((SPOOLED, _LABELS[SPOOLED]), (IN_MEMORY, _LABELS[IN_MEMORY]), (DOWNLOAD_FILE, DOWNLOAD_FILE)):
        if way in memory:
            yield Row(
                f"stream: {size.name}: growth of memory: {label} / read, write, read",
                megabytes(memory[way]),
                megabytes(memory[BY_BOTO]),
                [value / baseline for value in memory[way]],
                AT_MOST,
                target=0.1 if way == SPOOLED else None,
            )


STREAM = Bench(
    name="stream",
    work="S3 objects of 100 MB and 1 GB to what a converter reads",
    against="read, write to a temporary file, read back; boto3's `download_file`",
    to_reach="on the simulated link ≥ 6 and ≥ 1.5 times as fast; growth of memory ≤ 10 % of reading it whole",
    feels="A large document in a bucket is being converted while others would still be downloading it.",
    run=stream,
)
MEDIUM = Bench(
    name="medium",
    work="an S3 object of 50 MB to what a converter reads",
    against="through a temporary file",
    to_reach="≥ 2.2 times as fast, 0 bytes written to disk",
    feels="Ordinary documents from buckets wear no disk and wait for none.",
    run=medium,
)

"""An object among readers: alone while it is fast, together where each is slow, and every byte once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from daemon.s3.division import SMALLEST_PART_BYTES, Division, Span

SIZE_BYTES = 8 * SMALLEST_PART_BYTES
PIECE_BYTES = 1 << 16
READERS = 6
_PAUSE = threading.Event()


def slowly(span: Span) -> None:
    """At most 32 MB/s."""
    while span.at < span.end:
        _PAUSE.wait(0.002)
        span.at = min(span.at + PIECE_BYTES, span.end)


def at_once(span: Span) -> None:
    span.at = span.end


def read_by(read: Callable[[Span], None]) -> list[Future[None]]:
    """The first reader and those who came to help it, at their ends."""
    division = Division(SIZE_BYTES, READERS, read)
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(division.read_first)]
        while more := division.helpers_wanted():
            readers += [pool.submit(division.help) for _ in range(more)]
    return readers


def test_who_is_fast_is_left_alone() -> None:
    assert len(read_by(at_once)) == 1


def test_slow_readers_read_everything_once() -> None:
    spans: list[Span] = []

    def read(span: Span) -> None:
        spans.append(span)
        slowly(span)

    readers = read_by(read)
    assert [done.exception() for done in readers] == [None] * len(readers)
    assert 2 <= len(readers) <= READERS
    ordered = sorted(spans, key=lambda span: span.start)
    assert [span.start for span in ordered] == [0, *(span.end for span in ordered[:-1])]
    assert ordered[-1].end == SIZE_BYTES
    assert all(span.at == span.end for span in spans)
    assert all(span.end - span.start >= SMALLEST_PART_BYTES for span in ordered[1:])


def test_one_that_fails_ends_all() -> None:
    """As with a document that changed: nobody goes on reading what nobody wants."""

    def read(span: Span) -> None:
        if span.start:
            raise ValueError("changed")
        slowly(span)

    first, *others = read_by(read)
    assert first.exception() is None
    assert any(isinstance(done.exception(), ValueError) for done in others)


def test_who_gave_up_gives_nothing_out() -> None:
    division = Division(SIZE_BYTES, READERS, lambda span: pytest.fail("it reads"))
    division.give_up()
    division.help()
    assert division.helpers_wanted() == 0

"""An object among readers: alone while it is fast, together where each is slow, and every byte once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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


def spans_read(read: Callable[[Span], None], threads: int = READERS) -> list[Span]:
    """What was given to whom, by its beginning."""
    spans: list[Span] = []

    def remember(span: Span) -> None:
        spans.append(span)
        read(span)

    with ThreadPoolExecutor(threads) as pool:
        Division(SIZE_BYTES, READERS, remember, pool).run()
        assert all(span.at == span.end for span in spans), "somebody reads on"
    return sorted(spans, key=lambda span: span.start)


def test_who_is_fast_is_left_alone() -> None:
    assert len(spans_read(at_once)) == 1


def test_slow_readers_read_everything_once() -> None:
    threads: set[int] = set()

    def read(span: Span) -> None:
        threads.add(threading.get_ident())
        slowly(span)

    spans = spans_read(read)
    assert 2 <= len(threads) <= READERS
    assert [span.start for span in spans] == [0, *(span.end for span in spans[:-1])]
    assert spans[-1].end == SIZE_BYTES
    assert all(span.end - span.start >= SMALLEST_PART_BYTES for span in spans[1:])


def test_a_pool_that_is_busy_costs_nothing_but_time() -> None:
    busy = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(busy.wait)
        Division(SMALLEST_PART_BYTES, READERS, slowly, pool).run()
        busy.set()


@pytest.mark.parametrize("who", ["the first", "a helper"])
def test_one_that_fails_ends_all(who: str) -> None:
    """As with a document that changed: nobody goes on reading what nobody wants."""
    helped = threading.Event()
    spans: list[Span] = []

    def read(span: Span) -> None:
        spans.append(span)
        if span.start:
            helped.set()
        if (who == "the first") == (span.start == 0) and helped.wait(10):
            raise ValueError("changed")
        slowly(span)

    with ThreadPoolExecutor(READERS) as pool:
        with pytest.raises(ValueError, match="changed"):
            Division(SIZE_BYTES, READERS, read, pool).run()
        read_by_then = [span.at for span in spans]
    assert [span.at for span in spans] == read_by_then
    assert spans[0].at < SIZE_BYTES / 2

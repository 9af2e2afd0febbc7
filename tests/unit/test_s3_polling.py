"""When a bucket is listed again, and which listings are believed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from daemon.errors import ConvertdError, EnvironmentProblem
from daemon.model import Candidate
from daemon.s3.listing import Page
from daemon.sources import s3_polling
from daemon.sources.base import Ledger, Watcher
from daemon.sources.s3_polling import Doubted, Pace, Polling
from daemon.sources.waiting import Rechecks
from tests.unit.test_dispatch import Clock
from tests.watching import MemoryWatcher, watched

SELDOM_SECONDS = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_after_news_the_next_listing_comes_sooner_and_then_ever_later(clock: Clock) -> None:
    pace = Pace(32.0, clock)
    waits = []
    for news in (0, 7, 0, 0, 0, 0, 1):
        pace.begins()
        waits.append(pace.seconds_to_wait(news))
    assert waits == [32.0, 4.0, 8.0, 16.0, 32.0, 32.0, 4.0]


@pytest.mark.parametrize(("interval_seconds", "after_news_seconds"), [(4.0, 1.0), (0.5, 0.5)])
def test_news_make_no_listing_come_too_soon(clock: Clock, interval_seconds: float, after_news_seconds: float) -> None:
    pace = Pace(interval_seconds, clock)
    pace.begins()
    assert pace.seconds_to_wait(1) == after_news_seconds


def test_long_listings_take_a_fifth_of_the_time(clock: Clock) -> None:
    pace = Pace(30.0, clock)
    pace.begins()
    clock.now += 100.0
    assert pace.seconds_to_wait(1) == 400.0


class Bucket:
    """Gives other etags for objects than it lists."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.there = {b"a": Candidate(b"a", "1-real", 1)}

    def look(self, source: bytes) -> Candidate | None:
        self.asked.append(source)
        return self.there.get(source)


def test_what_is_doubted_is_asked_for_once_for_each_version_listed() -> None:
    bucket = Bucket()
    doubted = Doubted(bucket.look)
    listed = [Candidate(b"a", "1-listed", 1), Candidate(b"b", "1-listed", 1)]
    assert not doubted and doubted.asked(listed) == listed
    doubted.add([b"a"])
    assert doubted
    for _ in range(2):
        assert doubted.asked(listed) == [bucket.there[b"a"], listed[1]]
    assert bucket.asked == [b"a"]
    bucket.there[b"a"] = Candidate(b"a", "2-real", 2)
    again = [Candidate(b"a", "2-listed", 2)]
    assert doubted.asked(again) == [bucket.there[b"a"]]
    assert bucket.asked == [b"a", b"a"]


def test_what_is_doubted_and_gone_is_taken_as_it_is_listed() -> None:
    bucket = Bucket()
    doubted = Doubted(bucket.look)
    doubted.add([b"gone"])
    listed = [Candidate(b"gone", "1-listed", 1)]
    assert doubted.asked(listed) == listed


def test_doubts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_polling, "MOST_DOUBTED", 2)
    bucket = Bucket()
    doubted = Doubted(bucket.look)
    doubted.add([b"a", b"b"])
    doubted.add([b"c"])
    doubted.asked([Candidate(name, "1", 1) for name in (b"a", b"b", b"c")])
    assert bucket.asked == [b"c"]


class Pages:
    """A source whose bucket is in memory: what is listed page by page, and what is there when one looks. `errors` are
    raised first by who looks at a path, one after the other."""

    def __init__(self, *pages: list[Candidate], interval_seconds: float = SELDOM_SECONDS) -> None:
        self.pages = pages
        self.there = {found.source: found for page in pages for found in page}
        self.errors: dict[bytes, list[ConvertdError]] = {}
        self.rechecks = Rechecks()
        self.interval_seconds = interval_seconds
        self.watcher = MemoryWatcher()
        self.left_when_looking: list[int | None] = []

    def listed(self, token: str | None) -> Iterator[tuple[list[Candidate], Page]]:
        first = int(token or 0)
        for number, page in enumerate(self.pages[first:], first + 1):
            yield page, Page([], str(number) if number < len(self.pages) else None)

    def look(self, source: bytes) -> Candidate | None:
        self.left_when_looking.append(self.watcher.left)
        if errors := self.errors.get(source):
            raise errors.pop(0)
        return self.there.get(source)

    def run(self, ledger: Ledger, watcher: Watcher, stopped: Callable[[], bool]) -> None:
        self.watcher = cast(MemoryWatcher, watcher)
        pace = Pace(self.interval_seconds, time.monotonic)
        Polling(cast(Any, self), self.rechecks, ledger, watcher, stopped, pace, time.monotonic).run()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_polling, "RETRY_SECONDS", (0.02,) * 5)


@pytest.mark.usefixtures("impatient")
def test_what_could_not_be_looked_at_again_is_left_until_it_has_been() -> None:
    source = Pages([Candidate(b"a", "1-old", 1)])
    with watched(cast(Any, source)) as polled:
        polled.drained()
        source.there[b"a"] = newer = Candidate(b"a", "2-new", 2)
        source.errors[b"a"] = [EnvironmentProblem("throttled"), EnvironmentProblem("throttled")]
        source.rechecks.add(b"a")
        polled.drained()
        assert polled.ledger.jobs[-1] == newer
        assert len(polled.watcher.illnesses) == 2
        assert 0 not in source.left_when_looking

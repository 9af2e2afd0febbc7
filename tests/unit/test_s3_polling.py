"""When a bucket is listed again, and which listings are believed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from daemon.errors import ConvertdError, DocumentError, EnvironmentProblem, Kind, TransientError
from daemon.model import Candidate
from daemon.s3.listing import Page
from daemon.sources import s3_polling
from daemon.sources.base import Ledger, Watcher
from daemon.sources.s3_polling import Doubted, Pace, Polling
from daemon.sources.waiting import Rechecks
from tests.harness import until
from tests.unit.test_dispatch import Clock
from tests.watching import MemoryWatcher, watched

SELDOM_SECONDS = 3600.0
REFUSED = (
    TransientError(Kind.UNREADABLE, "looking at it: 403"),
    DocumentError(Kind.UNREADABLE, "S3 has no such name"),
)


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


@pytest.mark.parametrize("error", REFUSED)
def test_what_is_doubted_and_cannot_be_looked_at_is_taken_as_it_is_listed(error: ConvertdError) -> None:
    errors = [error]

    def look(source: bytes) -> Candidate | None:
        if source == b"a" and errors:
            raise errors.pop()
        return Candidate(source, "1-real", 1)

    doubted = Doubted(look)
    doubted.add([b"a", b"b"])
    listed = [Candidate(b"a", "1-listed", 1), Candidate(b"b", "1-listed", 1)]
    assert doubted.asked(listed) == [listed[0], Candidate(b"b", "1-real", 1)]
    assert doubted.asked(listed) == [Candidate(b"a", "1-real", 1), Candidate(b"b", "1-real", 1)], "it is asked again"


def test_what_is_wrong_with_all_is_no_reason_to_believe_a_listing() -> None:
    def look(source: bytes) -> Candidate | None:
        raise EnvironmentProblem("credentials have expired")

    doubted = Doubted(look)
    doubted.add([b"a"])
    with pytest.raises(EnvironmentProblem):
        doubted.asked([Candidate(b"a", "1", 1)])


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
    raised first by who looks at a path, one after the other; `problem` is what a probe finds, `breaks_off_at` the page
    that cannot be had."""

    def __init__(self, *pages: list[Candidate], interval_seconds: float = SELDOM_SECONDS) -> None:
        self.pages = pages
        self.there = {found.source: found for page in pages for found in page}
        self.errors: dict[bytes, list[ConvertdError]] = {}
        self.rechecks = Rechecks()
        self.interval_seconds = interval_seconds
        self.problem: EnvironmentProblem | None = None
        self.breaks_off_at = 0
        self.watcher = MemoryWatcher()
        self.left_when_looking: list[int | None] = []

    def listed(self, token: str | None) -> Iterator[tuple[list[Candidate], Page]]:
        first = int(token or 0)
        for number, page in enumerate(self.pages[first:], first + 1):
            if number == self.breaks_off_at:
                raise EnvironmentProblem("the listing breaks off")
            yield page, Page([], str(number) if number < len(self.pages) else None)

    def look(self, source: bytes) -> Candidate | None:
        self.left_when_looking.append(self.watcher.left)
        if errors := self.errors.get(source):
            raise errors.pop(0)
        return self.there.get(source)

    def probe(self) -> None:
        if self.problem is not None:
            raise self.problem

    def run(self, ledger: Ledger, watcher: Watcher, stopped: Callable[[], bool]) -> None:
        self.watcher = cast(MemoryWatcher, watcher)
        pace = Pace(self.interval_seconds, time.monotonic)
        Polling(cast(Any, self), self.probe, self.rechecks, ledger, watcher, stopped, pace, time.monotonic).run()


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


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("error", REFUSED)
def test_an_object_that_cannot_be_looked_at_holds_up_no_listing(error: ConvertdError) -> None:
    source = Pages([Candidate(b"a", "1-old", 1)], interval_seconds=0.05)
    with watched(cast(Any, source)) as polled:
        polled.drained()
        source.errors[b"a"] = [error] * 1000
        source.rechecks.add(b"a")
        until(lambda: len(source.errors[b"a"]) < 1000, "it has been looked at")
        newer, other = Candidate(b"a", "2-new", 2), Candidate(b"b", "1", 1)
        source.pages = ([newer], [other])
        until(lambda: polled.ledger.jobs[-1] == other, "the second page is queued")
        assert newer in polled.ledger.jobs
        assert polled.watcher.illnesses == []
        polled.drained()


def test_what_cannot_be_looked_at_again_is_left_until_it_is_listed() -> None:
    source = Pages([Candidate(b"a", "1-old", 1)])
    with watched(cast(Any, source)) as polled:
        polled.drained()
        source.errors[b"a"] = [*REFUSED]
        source.rechecks.add(b"a")
        until(lambda: len(source.errors[b"a"]) == 1, "it has been looked at in vain")
        source.rechecks.add(b"b")
        until(lambda: polled.watcher.lefts == [0, 1, 2, 1], "only another one, looked at later, is done")


@pytest.mark.usefixtures("impatient")
def test_where_the_bucket_cannot_be_reached_no_single_object_is_to_blame() -> None:
    source = Pages([Candidate(b"a", "1-old", 1)])
    with watched(cast(Any, source)) as polled:
        polled.drained()
        source.problem = EnvironmentProblem("credentials have expired")
        source.there[b"a"] = newer = Candidate(b"a", "2-new", 2)
        source.errors[b"a"] = [REFUSED[0]] * 3
        source.rechecks.add(b"a")
        polled.drained()
        assert polled.ledger.jobs[-1] == newer
        assert {str(error) for error in polled.watcher.illnesses} == {"credentials have expired"}
        assert len(polled.watcher.illnesses) == 3


def test_a_listing_that_broke_off_begins_anew_where_it_has_to_tell_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_polling, "RETRY_SECONDS", (0.02,) * 1000)
    other = Candidate(b"b", "1", 1)
    source = Pages([Candidate(b"a", "1-old", 1)], [other])
    source.breaks_off_at = 2
    with watched(cast(Any, source), first_scan=False) as polled:
        until(lambda: polled.watcher.illnesses, "the listing has broken off")
        source.there[b"a"] = newer = Candidate(b"a", "2-new", 2)
        source.pages = ([newer], [other])
        source.errors[b"a"] = [REFUSED[0]]
        source.rechecks.add(b"a")
        until(lambda: not source.errors[b"a"], "it has been looked at in vain")
        source.breaks_off_at = 0
        polled.drained()
        assert newer in polled.ledger.jobs

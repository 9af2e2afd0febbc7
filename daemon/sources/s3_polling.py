"""How documents of a bucket are found: its prefix is listed again and again, and compared with what is known."""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.errors import ConvertdError, DocumentError, EnvironmentProblem, Stopped, TransientError
from daemon.model import Candidate
from daemon.sources.base import Ledger, Watcher
from daemon.sources.s3_contents import Contents
from daemon.sources.waiting import Rechecks

LOOK_SECONDS = 0.25
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
SHORTEST_INTERVAL_SECONDS = 1.0
NEWS_SHARE = 8  # of the interval: after news the next listing comes so much sooner
LISTING_SHARE = 5  # listing takes at most one part in so many of the time
MOST_DOUBTED = 100_000
WELL_FOR_SECONDS = 5.0


class Polling:
    """One run of a bucket as a source, in one thread: list, queue what is new, wait.

    A listing that breaks off is taken up at the page it broke off at. What is missing from a listing means nothing:
    that a document is gone is found out where it is to be read. `probe` raises EnvironmentProblem where the bucket as a
    whole cannot be reached.
    """

    def __init__(
        self,
        contents: Contents,
        probe: Callable[[], None],
        rechecks: Rechecks,
        ledger: Ledger,
        watcher: Watcher,
        stopped: Callable[[], bool],
        pace: Pace,
        monotonic: Callable[[], float],
    ) -> None:
        self._contents = contents
        self._probe = probe
        self._rechecks = rechecks
        self._ledger = ledger
        self._watcher = watcher
        self._stopped = stopped
        self._pace = pace
        self._monotonic = monotonic
        self._token: str | None = None
        self._news = self._unnamed = 0
        self._failures = 0
        self._well_until = monotonic()
        self._doubted = Doubted(self._look)
        self._untold: set[bytes] = set()  # looked at in vain: left to the next listing

    def run(self) -> None:
        """Poll until stopped."""
        while not self._stopped():
            try:
                self._look_again()
                self._list()
                self._recover()
                self._wait(self._pace.seconds_to_wait(self._news))
            except Stopped:
                return
            except ConvertdError as error:
                self._fall_ill(error)

    def _list(self) -> None:
        self._pace.begins()
        if self._token is None:
            self._news = self._unnamed = 0
        for candidates, page in self._contents.listed(self._token):
            self._watcher.beat()
            self._take(candidates)
            self._unnamed += page.unnamed
            self._token = page.next_token
            if self._stopped():
                raise Stopped("stopped while listing")
        self._token = None

    def _take(self, candidates: list[Candidate]) -> None:
        unknown = self._ledger.unknown(candidates) if candidates else []
        if unknown and self._doubted:
            unknown = self._ledger.unknown(self._doubted.asked(unknown))
        if unknown:
            self._news += self._ledger.enqueue(unknown)

    def _fall_ill(self, error: ConvertdError) -> None:
        if self._failures >= len(RETRY_SECONDS):
            self._token = None  # a server may have forgotten what a token means
        seconds = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        self._watcher.sick(EnvironmentProblem(error.message, error.hint))
        until = self._monotonic() + seconds
        while not self._stopped() and (left := until - self._monotonic()) > 0:
            self._watcher.beat()
            time.sleep(min(left, LOOK_SECONDS))

    def _recover(self) -> None:
        if self._failures:
            self._failures = 0
            self._watcher.well()
        unnamed = self._unnamed
        self._watcher.note(f"{unnamed} objects are passed over: their keys are not UTF-8" if unnamed else None)
        self._untold.clear()
        self._rechecks.report(self._watcher, 0)

    def _wait(self, seconds: float) -> None:
        """Until the next listing; paths that others want looked at again are looked at meanwhile."""
        until = self._monotonic() + seconds
        while not self._stopped() and (left := until - self._monotonic()) > 0:
            self._watcher.beat()
            self._rechecks.wait(min(left, LOOK_SECONDS))
            self._look_again()
            self._rechecks.report(self._watcher, len(self._untold))

    def _look_again(self) -> None:
        """At the paths that others want looked at again, which are left until that has gone well."""
        paths = sorted(self._rechecks.take())
        self._doubted.add(paths)
        try:
            found = [self._found(path) for path in paths]
            self._take([candidate for candidate in found if candidate is not None])
        except ConvertdError:
            for path in paths:
                self._rechecks.add(path)
            raise

    def _found(self, path: bytes) -> Candidate | None:
        try:
            return self._look(path)
        except (DocumentError, TransientError):
            self._untold.add(path)
            self._token = None  # what is left of a listing that broke off need not tell of it
            return None

    def _look(self, path: bytes) -> Candidate | None:
        """As `Contents.look`; what is wrong with more than this one object is an EnvironmentProblem."""
        try:
            return self._contents.look(path)
        except (DocumentError, TransientError):
            if self._monotonic() >= self._well_until:
                self._probe()
                self._well_until = self._monotonic() + WELL_FOR_SECONDS
            raise


class Doubted:
    """Documents that turned out to have changed since they were listed, or so it seemed.

    Some servers list another etag than they give for the object itself: taken at its word, every listing would be news.
    So what is listed anew of these is asked for before it is believed, once for each version listed. What a look cannot
    tell is believed, too: a job finds it out, which has its attempts and an end that is told.
    """

    def __init__(self, look: Callable[[bytes], Candidate | None]) -> None:
        self._look = look
        self._known: dict[bytes, tuple[str, Candidate | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, paths: list[bytes]) -> None:
        """From now on these are doubted."""
        if len(self._known) + len(paths) > MOST_DOUBTED:
            self._known.clear()
        for path in paths:
            self._known.setdefault(path, ("", None))

    def asked(self, listed: list[Candidate]) -> list[Candidate]:
        """The candidates of a listing, those that are doubted as they really are."""
        return [self._asked(found) if found.source in self._known else found for found in listed]

    def _asked(self, listed: Candidate) -> Candidate:
        version, actual = self._known[listed.source]
        if version != listed.version or actual is None:
            try:
                actual = self._look(listed.source) or listed
            except (DocumentError, TransientError):
                return listed
            self._known[listed.source] = (listed.version, actual)
        return actual


class Pace:
    """How long to wait between two listings: sooner after news, and never listing most of the time."""

    def __init__(self, interval_seconds: float, monotonic: Callable[[], float]) -> None:
        self._interval_seconds = interval_seconds
        self._monotonic = monotonic
        self._began = monotonic()
        self._next_seconds = interval_seconds

    def begins(self) -> None:
        """A listing begins, or goes on."""
        self._began = self._monotonic()

    def seconds_to_wait(self, news: int) -> float:
        """A listing has ended that found so many new versions."""
        shortest = min(self._interval_seconds, SHORTEST_INTERVAL_SECONDS)
        if news:
            self._next_seconds = max(shortest, self._interval_seconds / NEWS_SHARE)
        else:
            self._next_seconds = min(self._interval_seconds, self._next_seconds * 2)
        return max(self._next_seconds, (LISTING_SHARE - 1) * (self._monotonic() - self._began))

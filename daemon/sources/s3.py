"""A prefix of a bucket as the source of documents: listed again and again, compared with what is known."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from daemon.buckets import Prefix
from daemon.errors import (
    ConvertdError,
    DocumentError,
    EnvironmentProblem,
    SourceChanged,
    SourceVanished,
    Stopped,
)
from daemon.model import Candidate, Disposal, Job, State, display
from daemon.s3.download import Downloader
from daemon.s3.listing import Page, pages, read_fast
from daemon.s3.objects import Bucket, Head, server_age_seconds
from daemon.s3.problems import CredentialsProblem, about_the_request, forbids
from daemon.sources.base import Fetched, Ledger, PassOver, Surroundings, Watcher, surveyed
from daemon.sources.s3_disposer import S3Disposer
from daemon.sources.s3_version import etag_of, may_hold_the_same, object_version
from daemon.sources.waiting import Rechecks

if TYPE_CHECKING:
    from daemon.config import Watch
    from daemon.settings import S3
    from daemon.sources.discovery import Filter

LOOK_SECONDS = 0.25
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
SHORTEST_INTERVAL_SECONDS = 1.0
NEWS_SHARE = 8  # of the interval: after news the next listing comes so much sooner
LISTING_SHARE = 5  # listing takes at most one part in so many of the time
PROBED_OBJECTS = 5
MOST_DOUBTED = 100_000


class S3Source:
    """The objects below one prefix. `run` belongs to one thread; all else may be called from any.

    `age_seconds` tells from an answer of the server how long ago the object was changed.
    """

    def __init__(
        self,
        place: Prefix,
        settings: S3,
        wanted: Filter,
        surroundings: Surroundings,
        *,
        poll_interval_seconds: float = 30.0,
        age_seconds: Callable[[Mapping[str, Any]], float] = server_age_seconds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._settings = settings
        self._clients = surroundings.clients
        self._payloads = surroundings.payloads
        self._wanted = wanted
        self._interval_seconds = poll_interval_seconds
        self._monotonic = monotonic
        self._downloader = Downloader(surroundings.stopping)
        self._bucket = Bucket(place.bucket, lambda: self._clients.s3(settings, reading=False))
        self._looked_at = Bucket(place.bucket, lambda: self._clients.s3(settings, reading=True))
        self._disposer = S3Disposer(place, self._bucket, age_seconds, surroundings.fault)
        self._rechecks = Rechecks()

    @classmethod
    def for_watch(cls, watch: Watch, surroundings: Surroundings) -> S3Source:
        """The source that a watch configures: a prefix itself, or that of a queue."""
        from daemon.globs import Filter as Globs

        return cls(
            Prefix.parse(watch.prefix or watch.source),
            watch.s3,
            Globs(watch.include, watch.exclude),
            surroundings,
            poll_interval_seconds=watch.poll_interval_seconds,
        )

    # -- discovery ---------------------------------------------------------------------------------------------

    def run(self, ledger: Ledger, watcher: Watcher, stopped: Callable[[], bool]) -> None:
        pace = Pace(self._interval_seconds, self._monotonic)
        Polling(self, self._rechecks, ledger, watcher, stopped, pace, self._monotonic).run()

    def recheck(self, source: bytes) -> None:
        self._rechecks.add(source)

    def listed(self, token: str | None) -> Iterator[tuple[list[Candidate], Page]]:
        """The prefix from `token` on, page by page: the candidates of each, and the page they are of."""
        client = self._clients.s3(self._settings, reading=True)
        read_fast(client)
        for page in pages(client, self._place.bucket, self._place.prefix, token):
            yield self._candidates(page, self._wanted.takes), page

    def look(self, source: bytes) -> Candidate | None:
        """The object at this path as it is now; None where there is none that this watch takes."""
        if not self._wanted.takes(source):
            return None
        try:
            with self._present():
                head = self._looked_at.head(self._key(source))  # at a stop nobody waits for it
        except SourceVanished:
            return None
        return Candidate(source, object_version(head.etag, head.size_bytes), head.size_bytes)

    def _candidates(self, page: Page, takes: Callable[[bytes], bool]) -> list[Candidate]:
        prefix = self._place.prefix
        skip = len(prefix)
        candidates = []
        for key, etag, size_bytes in page.entries:
            if not key.startswith(prefix):
                continue  # a server that does not know prefixes
            source = key[skip:].encode("utf-8", "surrogateescape")
            if not source or (size_bytes == 0 and source.endswith(b"/")):
                continue  # what some tools put where a folder would be
            if takes(source):
                candidates.append(Candidate(source, object_version(etag, size_bytes), size_bytes))
        return candidates

    # -- one document ------------------------------------------------------------------------------------------

    @contextmanager
    def fetch(self, job: Job) -> Iterator[Fetched]:
        with self._present():
            bucket, key, etag = self._version_to_fetch(job)
        with self._payloads.new(job.size_bytes, job.rank) as payload:
            client = self._clients.s3(self._settings, reading=True)
            with self._present():
                self._downloader.fill(client, payload.fd, bucket, key, etag, job.size_bytes)
            payload.seal()
            yield Fetched(payload.fd, job.size_bytes)

    def verify(self, job: Job, fetched: Fetched | None) -> None:
        with self._present():
            self._require_version(job, self._head(job))

    def settled(self, job: Job, state: State) -> None:
        pass  # nobody else waits for it

    def may_be_same(self, earlier: str, later: str) -> bool:
        return may_hold_the_same(earlier, later)

    def exists(self, source: bytes) -> bool:
        try:
            with self._present():
                self._bucket.head(self._key(source))
        except SourceVanished:
            return False
        return True

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        return self._disposer.dispose(job, disposal)

    @contextmanager
    def _present(self) -> Iterator[None]:
        """In a bucket that is gone every document looks gone: then it is not the document's end."""
        try:
            yield
        except SourceVanished:
            self._bucket.require()
            raise

    def _version_to_fetch(self, job: Job) -> tuple[str, str, str]:
        """Bucket, key and etag. Moving may have changed the etag, so that of a moved object is asked for."""
        if job.location is None:
            return self._place.bucket, self._key(job.source), etag_of(job.version)
        head = self._head(job)
        self._require_version(job, head)
        bucket, key = self._disposer.where(job)
        return bucket, key, head.etag

    def _head(self, job: Job) -> Head:
        bucket, key = self._disposer.where(job)
        return self._bucket.elsewhere(bucket).head(key)

    def _require_version(self, job: Job, head: Head) -> None:
        version = object_version(head.etag, head.size_bytes)
        if version == job.version or (job.location is not None and head.size_bytes == job.size_bytes):
            return
        raise SourceChanged("the document has changed since it was queued")

    def _key(self, source: bytes) -> str:
        return self._place.key(source.decode("utf-8", "surrogateescape"))

    # -- the source as a whole ---------------------------------------------------------------------------------

    def probe(self) -> None:
        try:
            self._probe()
        except CredentialsProblem:
            self._clients.renew(self._settings)
            raise
        except (EnvironmentProblem, Stopped):
            raise
        except ConvertdError as error:
            raise EnvironmentProblem(error.message, error.hint) from error

    def _probe(self) -> None:
        """List, and read a byte of some object: a policy may allow the one and not the other."""
        client = self._clients.s3(self._settings, reading=True)  # at a stop nobody waits for it
        page = next(pages(client, self._place.bucket, self._place.prefix))
        keys = [key for key, _, size_bytes in page.entries if size_bytes]
        refused: ConvertdError | None = None
        for key in random.sample(keys, min(len(keys), PROBED_OBJECTS)):  # any: a few may be somebody else's
            try:
                self._looked_at.read_a_byte(key)
                return
            except ConvertdError as error:
                if isinstance(error, DocumentError) or (about_the_request(error) and not forbids(error)):
                    return  # an answer about this very object: objects can be read
                if not forbids(error):
                    raise
                refused = error
        if refused is not None:
            raise refused

    def explain(self, source: bytes) -> Iterator[str]:
        rule = self._wanted.why(source)
        if rule is not None:
            yield f"not taken: {rule}"
            return
        try:
            there = self.look(source) is not None
        except ConvertdError as error:
            yield f"cannot be looked at: {error.message}"
            return
        yield "taken by this watch" if there else f"not there now: {display(self._key(source).encode())}"

    def survey(self, pass_over: PassOver) -> Iterator[list[Candidate]]:
        client = self._clients.s3(self._settings, reading=True)
        read_fast(client)
        takes = surveyed(self._wanted.takes, self._wanted.why, pass_over)
        try:
            for page in pages(client, self._place.bucket, self._place.prefix):
                for _ in range(page.unnamed):
                    pass_over(b"?", "its key is not UTF-8")
                yield self._candidates(page, takes)
        except (EnvironmentProblem, Stopped):
            raise
        except ConvertdError as error:
            raise EnvironmentProblem(error.message, error.hint) from error


class Polling:
    """One run of a bucket as a source, in one thread: list, queue what is new, wait.

    A listing that breaks off is taken up at the page it broke off at. What is missing from a listing means nothing:
    that a document is gone is found out where it is to be read.
    """

    def __init__(
        self,
        source: S3Source,
        rechecks: Rechecks,
        ledger: Ledger,
        watcher: Watcher,
        stopped: Callable[[], bool],
        pace: Pace,
        monotonic: Callable[[], float],
    ) -> None:
        self._source = source
        self._rechecks = rechecks
        self._ledger = ledger
        self._watcher = watcher
        self._stopped = stopped
        self._pace = pace
        self._monotonic = monotonic
        self._token: str | None = None
        self._news = self._unnamed = 0
        self._failures = 0
        self._doubted = Doubted(source)

    def run(self) -> None:
        """Poll until stopped."""
        while not self._stopped():
            try:
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
        for candidates, page in self._source.listed(self._token):
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
        self._rechecks.report(self._watcher, 0)

    def _wait(self, seconds: float) -> None:
        """Until the next listing; paths that others want looked at again are looked at meanwhile."""
        until = self._monotonic() + seconds
        while not self._stopped() and (left := until - self._monotonic()) > 0:
            self._watcher.beat()
            self._rechecks.wait(min(left, LOOK_SECONDS))
            if paths := self._rechecks.take():
                try:
                    self._look_again(sorted(paths))
                finally:
                    self._rechecks.report(self._watcher, 0)

    def _look_again(self, paths: list[bytes]) -> None:
        self._doubted.add(paths)
        found = [self._source.look(path) for path in paths]
        self._take([candidate for candidate in found if candidate is not None])


class Doubted:
    """Documents that turned out to have changed since they were listed, or so it seemed.

    Some servers list another etag than they give for the object itself: taken at its word, every listing would be news.
    So what is listed anew of these is asked for before it is believed, once for each version listed.
    """

    def __init__(self, source: S3Source) -> None:
        self._source = source
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
            actual = self._source.look(listed.source) or listed
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

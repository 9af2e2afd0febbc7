"""A prefix of a bucket as the source of documents: how each is fetched, verified and disposed of.

How they are found is in `s3_polling`, by what `s3_contents` sees of the prefix.
"""

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
from daemon.s3.listing import pages
from daemon.s3.objects import Bucket, Head, server_age_seconds
from daemon.s3.problems import CredentialsProblem, about_the_request, forbids
from daemon.sources.base import Fetched, Ledger, PassOver, Surroundings, Watcher
from daemon.sources.s3_contents import Contents
from daemon.sources.s3_disposer import S3Disposer
from daemon.sources.s3_polling import Pace, Polling
from daemon.sources.s3_version import etag_of, is_version, may_hold_the_same
from daemon.sources.waiting import Rechecks

if TYPE_CHECKING:
    from daemon.config import Watch
    from daemon.settings import S3
    from daemon.sources.discovery import Filter

PROBED_OBJECTS = 5


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
        self._looked_at = Bucket(place.bucket, self._reading_client)  # at a stop nobody waits for it
        self._contents = Contents(place, wanted, self._reading_client, self._looked_at, self._bucket)
        self._disposer = S3Disposer(place, self._bucket, age_seconds, surroundings.claims, surroundings.fault)
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
        Polling(self._contents, self.probe, self._rechecks, ledger, watcher, stopped, pace, self._monotonic).run()

    def recheck(self, source: bytes) -> None:
        self._rechecks.add(source)

    def look(self, source: bytes) -> Candidate | None:
        """The object at this path as it is now; None where there is none that this watch takes."""
        return self._contents.look(source)

    # -- one document ------------------------------------------------------------------------------------------

    @contextmanager
    def fetch(self, job: Job) -> Iterator[Fetched]:
        with self._bucket.present():
            bucket, key, etag = self._version_to_fetch(job)
        with self._payloads.new(job.size_bytes, job.rank) as payload:
            client = self._reading_client()
            with self._bucket.present():
                self._downloader.fill(client, payload.fd, bucket, key, etag, job.size_bytes)
            payload.seal()
            yield Fetched(payload.fd, job.size_bytes)

    def verify(self, job: Job, fetched: Fetched | None) -> None:
        with self._bucket.present():
            self._require_version(job, self._head(job))

    def settled(self, job: Job, state: State) -> None:
        pass  # nobody else waits for it

    def may_be_same(self, earlier: str, later: str) -> bool:
        return may_hold_the_same(earlier, later)

    def exists(self, source: bytes) -> bool:
        try:
            with self._bucket.present():
                self._bucket.head(self._contents.key(source))
        except SourceVanished:
            return False
        return True

    def vouch(self) -> None:
        pass  # `exists` has asked whether the bucket is there

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        return self._disposer.dispose(job, disposal)

    def has_begun(self, job: Job) -> bool:
        return self._disposer.has_begun(job)

    def _reading_client(self) -> Any:
        return self._clients.s3(self._settings, reading=True)

    def _version_to_fetch(self, job: Job) -> tuple[str, str, str]:
        """Bucket, key and etag. Moving may have changed the etag, so that of a moved object is asked for."""
        if job.location is None:
            return self._place.bucket, self._contents.key(job.source), etag_of(job.version)
        head = self._head(job)
        self._require_version(job, head)
        bucket, key = self._disposer.where(job)
        return bucket, key, head.etag

    def _head(self, job: Job) -> Head:
        bucket, key = self._disposer.where(job)
        return self._bucket.elsewhere(bucket).head(key)

    def _require_version(self, job: Job, head: Head) -> None:
        if not is_version(job, head.etag, head.size_bytes):
            raise SourceChanged("the document has changed since it was queued")

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
        page = next(pages(self._reading_client(), self._place.bucket, self._place.prefix))
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
        yield "taken by this watch" if there else f"not there now: {display(self._contents.key(source).encode())}"

    def survey(self, pass_over: PassOver) -> Iterator[list[Candidate]]:
        return self._contents.survey(pass_over)

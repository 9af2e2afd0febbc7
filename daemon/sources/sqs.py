"""A queue of SQS as the source of documents: it tells of the objects that are created below a prefix of a bucket.

Many daemons may share one queue, each with a job table of its own. A message is in the hands of one of them at a time
and is deleted when the jobs of its documents have durably ended; if its daemon dies before, another is given it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from daemon.buckets import Prefix, Queue
from daemon.errors import ConvertdError, EnvironmentProblem, SourceVanished, Stopped, TransientError
from daemon.model import Candidate, Disposal, Job, State
from daemon.s3.objects import Bucket, server_age_seconds
from daemon.s3.problems import CredentialsProblem, forbids
from daemon.s3.queues import MessageQueue
from daemon.sources.base import Fetched, Ledger, PassOver, Surroundings, Watcher
from daemon.sources.s3 import S3Source
from daemon.sources.sqs_held import Held
from daemon.sources.sqs_keeper import settle_rest
from daemon.sources.sqs_receiving import Receiving
from daemon.sources.waiting import Rechecks

if TYPE_CHECKING:
    from daemon.config import Watch
    from daemon.settings import S3
    from daemon.sources.discovery import Filter

LONGEST_WAIT_SECONDS = 20
"""SQS waits no longer for a message."""
ANSWER_SECONDS = 5.0
HIDDEN_SECONDS = 60
PROBED_NAME = ".convertd-probe"


class SqsSource:
    """The objects below one prefix that a queue tells of. `run` belongs to one thread; all else may be called from any.

    A message in hand is hidden from other daemons for `hidden_seconds` at a time, so that those of a daemon that died
    come back after that. One request waits for messages up to `wait_seconds`.
    """

    def __init__(
        self,
        queue: Queue,
        place: Prefix,
        settings: S3,
        wanted: Filter,
        surroundings: Surroundings,
        *,
        hidden_seconds: int = HIDDEN_SECONDS,
        wait_seconds: int | None = None,
        age_seconds: Callable[[Mapping[str, Any]], float] = server_age_seconds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._settings = settings
        self._clients = surroundings.clients
        self._hidden_seconds = hidden_seconds
        self._wait_seconds = longest_wait(settings.read_timeout_seconds) if wait_seconds is None else wait_seconds
        self._monotonic = monotonic
        self._queue = MessageQueue(queue, surroundings.clients, settings)
        self._documents = S3Source(place, settings, wanted, surroundings, age_seconds=age_seconds)
        self._bucket = Bucket(place.bucket, lambda: self._clients.s3(settings, reading=True))
        self._rechecks = Rechecks()
        self._held = Held()
        self._tells_missing = False

    @classmethod
    def for_watch(cls, watch: Watch, surroundings: Surroundings) -> SqsSource:
        """The source that a watch configures."""
        from daemon.globs import Filter as Globs

        return cls(
            Queue.parse(watch.source),
            Prefix.parse(watch.prefix),
            watch.s3,
            Globs(watch.include, watch.exclude),
            surroundings,
        )

    # -- discovery ---------------------------------------------------------------------------------------------

    def run(self, ledger: Ledger, watcher: Watcher, stopped: Callable[[], bool]) -> None:
        self._held = Held()
        Receiving(
            self._queue,
            self._place,
            self,
            self._held,
            self._rechecks,
            ledger,
            watcher,
            stopped,
            wait_seconds=self._wait_seconds,
            hidden_seconds=self._hidden_seconds,
            monotonic=self._monotonic,
        ).run()

    def recheck(self, source: bytes) -> None:
        self._rechecks.add(source)

    def look(self, source: bytes) -> Candidate | None:
        """The document at this path as it is now; None where there is none that this watch takes."""
        return self._documents.look(source)

    def settled(self, job: Job, state: State) -> None:
        if state is not State.SUPERSEDED:
            self._held.ended(job.source, job.version)
        elif self._held.superseded(job.source, job.version):
            self._rechecks.add(job.source)
        settle_rest(self._queue, self._held)  # after a stop nobody else does it

    # -- one document ------------------------------------------------------------------------------------------

    @contextmanager
    def fetch(self, job: Job) -> Iterator[Fetched]:
        try:
            with self._documents.fetch(job) as document:
                yield document
        except Stopped:
            self._held.given_back(job.source)
            settle_rest(self._queue, self._held)
            raise

    def verify(self, job: Job, fetched: Fetched | None) -> None:
        self._documents.verify(job, fetched)

    def may_be_same(self, earlier: str, later: str) -> bool:
        return self._documents.may_be_same(earlier, later)

    def exists(self, source: bytes) -> bool:
        return self._documents.exists(source)

    def vouch(self) -> None:
        self._documents.vouch()

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        return self._documents.dispose(job, disposal)

    def has_begun(self, job: Job) -> bool:
        return self._documents.has_begun(job)

    def explain(self, source: bytes) -> Iterator[str]:
        return self._documents.explain(source)

    def survey(self, pass_over: PassOver) -> Iterator[list[Candidate]]:
        """Nothing: a queue cannot be looked into, and what lies in the bucket need not be told of by it."""
        return iter(())

    # -- the source as a whole ---------------------------------------------------------------------------------

    def probe(self) -> None:
        """Needs no right to list the bucket."""
        try:
            self._queue.require()
            self._probe_bucket()
        except CredentialsProblem:
            self._clients.renew(self._settings)
            raise
        except (EnvironmentProblem, Stopped):
            raise
        except ConvertdError as error:
            raise EnvironmentProblem(error.message, error.hint) from error

    def _probe_bucket(self) -> None:
        """Read what need not be there. Who may not list a bucket is told that this is forbidden; who was told before
        that it is missing has lost a right."""
        try:
            self._bucket.read_a_byte(self._place.key(PROBED_NAME))
        except SourceVanished:
            self._tells_missing = True
        except TransientError as error:
            if self._tells_missing or not forbids(error):
                raise


def longest_wait(read_timeout_seconds: float) -> int:
    """How long a request may wait for a message: the answer has to come before its connection is given up."""
    return min(LONGEST_WAIT_SECONDS, int(max(read_timeout_seconds - ANSWER_SECONDS, read_timeout_seconds / 2)))

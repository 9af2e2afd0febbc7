"""What lies below a prefix of a bucket, as candidates: all of it by listing, or one object by asking for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from daemon.buckets import Prefix
from daemon.errors import ConvertdError, EnvironmentProblem, SourceVanished, Stopped
from daemon.model import Candidate
from daemon.s3.listing import Page, pages, read_fast
from daemon.s3.objects import Bucket
from daemon.sources.base import PassOver, Takes, surveyed
from daemon.sources.s3_version import object_version

if TYPE_CHECKING:
    from daemon.sources.discovery import Filter


class Contents:
    """The objects below one prefix that are `wanted`. May be asked from any thread.

    `client` gives boto3's client at each listing. Single objects are looked at in `looked_at`; `bucket` is the same
    one, and is asked where they are missing.
    """

    def __init__(
        self, place: Prefix, wanted: Filter, client: Callable[[], Any], looked_at: Bucket, bucket: Bucket
    ) -> None:
        self._place = place
        self._wanted = wanted
        self._client = client
        self._looked_at = looked_at
        self._bucket = bucket

    def key(self, source: bytes) -> str:
        """The key of the object at this path."""
        return self._place.key(source.decode("utf-8", "surrogateescape"))

    def listed(self, token: str | None) -> Iterator[tuple[list[Candidate], Page]]:
        """The prefix from `token` on, page by page: the candidates of each, and the page they are of."""
        for page in self._pages(token):
            yield self._candidates(page, self._wanted.takes), page

    def look(self, source: bytes) -> Candidate | None:
        """The object at this path as it is now; None where there is none that this watch takes."""
        if not self._wanted.takes(source):
            return None
        try:
            with self._bucket.present():
                head = self._looked_at.head(self.key(source))
        except SourceVanished:
            return None
        return Candidate(source, object_version(head.etag, head.size_bytes), head.size_bytes)

    def survey(self, pass_over: PassOver) -> Iterator[list[Candidate]]:
        """See `Source.survey`."""
        takes = surveyed(self._wanted.takes, self._wanted.why, pass_over)
        listed = self._pages(None)
        try:
            for page in listed:
                for _ in range(page.unnamed):
                    pass_over(b"?", "its key is not UTF-8")
                yield self._candidates(page, takes)
        except (EnvironmentProblem, Stopped):
            raise
        except ConvertdError as error:
            raise EnvironmentProblem(error.message, error.hint) from error

    def _pages(self, token: str | None) -> Iterator[Page]:
        client = self._client()
        read_fast(client)
        return pages(client, self._place.bucket, self._place.prefix, token)

    def _candidates(self, page: Page, takes: Takes) -> list[Candidate]:
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

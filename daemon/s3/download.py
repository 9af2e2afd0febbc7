"""Fills a descriptor with an object: by one request or, where it is large and comes slowly, by many at once.

Every request names the version it wants (If-Match), says which bytes, and is answered with exactly these or asked again
from where it broke off: what comes out is the whole object in one version, or an error.
"""

from __future__ import annotations

import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from daemon.errors import Kind, SourceChanged, Stopped, TransientError
from daemon.s3.body import Body
from daemon.s3.division import Division, Span
from daemon.s3.etags import bare_etag, if_match
from daemon.s3.problems import BODY_ERRORS, code_of, translate

SINGLE_BYTES = 32 << 20
PROGRESS_BYTES = 1 << 20
THREADS = 16
TRIES = 4
BACKOFF_SECONDS = 0.5
SLOWEST_SECONDS = 30.0
"""How long PROGRESS_BYTES may take: a server that sends a byte now and then is no better than a silent one."""

_CHANGED = ("PreconditionFailed", "412")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Broken(Exception):
    """A body that is not what was asked for; the same question may be answered better."""


class RangesIgnored(Exception):
    """The server answers a request for a part with the whole."""


class Downloader:
    """Downloads objects through one reading client. Thread-safe; all large objects together are helped by `threads`.

    `stopped` is set at a stop, which also ends calls under way (see `Clients.stop`).
    """

    def __init__(self, stopped: threading.Event, threads: int = THREADS) -> None:
        self._stopped = stopped
        self._most = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="s3-range")

    def fill(self, client: Any, fd: int, bucket: str, key: str, etag: str, size_bytes: int) -> None:
        """Write the object of exactly this version and size to `fd`, from its beginning.

        Raises SourceVanished, SourceChanged, TransientError, EnvironmentProblem and Stopped; nobody writes to `fd` any
        more then.
        """
        if size_bytes == 0:
            return
        item = _Object(client, bucket, key, etag, size_bytes, self._stopped)
        try:
            if size_bytes <= SINGLE_BYTES:
                item.fill(fd, Span(0, size_bytes))
            else:
                Division(size_bytes, self._most, lambda span: item.fill(fd, span), self._threads).run()
        except RangesIgnored:
            item.fill(fd, Span(0, size_bytes), whole=True)


class _Object:
    """One version of one object, as it is being downloaded."""

    def __init__(
        self, client: Any, bucket: str, key: str, etag: str, size_bytes: int, stopped: threading.Event
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._etag = etag
        self._size_bytes = size_bytes
        self._stopped = stopped
        self._conditions = if_match(etag)

    def fill(self, fd: int, span: Span, *, whole: bool = False) -> None:
        """Write the bytes of the span."""
        tries, counted_from = 0, span.at
        while span.at < span.end:
            try:
                self._try(fd, span, whole)
            except (BotoCoreError, ClientError, Broken, *BODY_ERRORS) as error:
                tries = 1 if span.at - counted_from >= PROGRESS_BYTES else tries + 1
                counted_from = span.at
                self._give_up_or_wait(error, tries)
                if whole:
                    span.at = span.start

    def _give_up_or_wait(self, error: Exception, tries: int) -> None:
        what = f"reading s3://{self._bucket}/{self._key}"
        if self._stopped.is_set():
            raise Stopped("stopped while a document was fetched") from error
        if isinstance(error, (ClientError, BotoCoreError)):  # boto3 has tried it as often as it is worth
            if tries < TRIES and isinstance(error, ClientError) and code_of(error) in _CHANGED and self._misjudged():
                self._conditions = {}
                return
            raise translate(error, what, Kind.UNREADABLE) from error
        if tries >= TRIES:
            if isinstance(error, Broken):
                hint = "Check the server, and what lies between it and this machine; then retry."
                raise TransientError(Kind.UNREADABLE, f"{what}: {error}", hint) from error
            raise translate(error, what, Kind.UNREADABLE) from error
        if self._stopped.wait(BACKOFF_SECONDS * 2 ** (tries - 1) * random.uniform(0.5, 1.0)):  # noqa: S311
            raise Stopped("stopped while a document was fetched") from error

    def _misjudged(self) -> bool:
        """Whether the object is what it was after all: some servers do not recognise their own etag."""
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=self._key)
        except (BotoCoreError, ClientError):
            return False
        return bare_etag(found.get("ETag", "")) == self._etag

    def _try(self, fd: int, span: Span, whole: bool) -> None:
        """Write what is left of the span. Raises Broken, SourceChanged, RangesIgnored, boto3's errors."""
        at, end = span.at, span.end
        part = (at, end) != (0, self._size_bytes) and not whole
        arguments = {"Range": f"bytes={at}-{end - 1}"} if part else {}
        reply = self._client.get_object(Bucket=self._bucket, Key=self._key, **arguments, **self._conditions)
        body = Body(reply["Body"]._raw_stream, end - at)
        try:
            self._require_answer(reply, at, end, part)
            _move(body, fd, span, end)
        except BaseException:
            body.close()
            raise
        if span.at == end:
            body.finish()
        else:
            body.close()

    def _require_answer(self, reply: dict[str, Any], at: int, end: int, part: bool) -> None:
        etag = bare_etag(reply.get("ETag", ""))
        if self._etag and etag and etag != self._etag:
            raise SourceChanged("the document changed while it was read")
        if part and "ContentRange" not in reply:
            raise RangesIgnored
        if part:
            found = _CONTENT_RANGE.fullmatch(reply["ContentRange"])
            if not found or (int(found[1]), int(found[2])) != (at, end - 1):
                raise Broken(f"other bytes were sent than asked for ({reply['ContentRange']})")
            if found[3] not in ("*", str(self._size_bytes)):
                raise SourceChanged("the document has another size now")
        length = reply.get("ContentLength")
        if length is not None and length != end - at:
            raise Broken(f"a body of {length:,} bytes was announced, {end - at:,} were expected")


def _move(body: Body, fd: int, span: Span, end: int) -> None:
    """Move the body, which goes up to `end`, as far as the span goes."""
    since, counted_from = time.monotonic(), span.at
    while span.at < span.end:
        moved = body.move(fd, span.at)
        if not moved:
            raise Broken(f"the body ended {end - span.at:,} bytes early")
        if moved > end - span.at:
            raise Broken("the body is longer than it should be")
        span.at += moved
        if span.at - counted_from >= PROGRESS_BYTES:
            since, counted_from = time.monotonic(), span.at
        elif time.monotonic() - since > SLOWEST_SECONDS:
            raise Broken(f"less than {PROGRESS_BYTES:,} bytes came in {SLOWEST_SECONDS:.0f} s")

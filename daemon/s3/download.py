"""Fills a descriptor with an object: by one request or, where it is large, by many at once.

Every request names the version it wants (If-Match), says which bytes, and is answered with exactly these or asked again
from where it broke off: what comes out is the whole object in one version, or an error.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from daemon.errors import Kind, SourceChanged, Stopped, TransientError
from daemon.s3.problems import BODY_ERRORS, code_of, translate

SINGLE_BYTES = 32 << 20
RANGE_BYTES = 8 << 20
READ_BYTES = 1 << 20
THREADS = 16
TRIES = 4
BACKOFF_SECONDS = 0.5
SLOWEST_SECONDS = 60.0
"""How long READ_BYTES may take: a server that sends a byte now and then is no better than a silent one."""

_CHANGED = ("PreconditionFailed", "412")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Broken(Exception):
    """A body that is not what was asked for; the same question may be answered better."""


class RangesIgnored(Exception):
    """The server answers a request for a part with the whole."""


class Downloader:
    """Downloads objects through one reading client. Thread-safe; holds at most `threads` MiB for large objects.

    `stopped` is set at a stop, which also ends calls under way (see `Clients.stop`).
    """

    def __init__(self, stopped: threading.Event, threads: int = THREADS) -> None:
        self._stopped = stopped
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
                item.fill(fd, 0, size_bytes)
            else:
                self._fill_by_ranges(item, fd, size_bytes)
        except RangesIgnored:
            item.fill(fd, 0, size_bytes, whole=True)

    def _fill_by_ranges(self, item: _Object, fd: int, size_bytes: int) -> None:
        failed = threading.Event()
        ranges = [
            self._threads.submit(item.fill, fd, start, min(start + RANGE_BYTES, size_bytes), failed=failed)
            for start in range(0, size_bytes, RANGE_BYTES)
        ]
        try:
            for done in ranges:
                done.result()
        finally:
            failed.set()
            _abandon(ranges)


def _abandon(ranges: list[Future[None]]) -> None:
    """Those that have not begun never will; those that have are waited for, as they write to the descriptor."""
    wait([done for done in ranges if not done.cancel()])


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
        self._conditions = {"IfMatch": f'"{etag}"'} if etag else {}

    def fill(
        self, fd: int, start: int, end: int, *, whole: bool = False, failed: threading.Event | None = None
    ) -> None:
        """Write the bytes from `start` to `end`. `failed` is set when they are no longer wanted."""
        at, tries, counted_from = start, 0, start
        while at < end:
            if failed is not None and failed.is_set():
                return
            try:
                for chunk in self._body(at, end, whole):
                    at += _write_all(fd, chunk, at)
                    if failed is not None and failed.is_set():
                        return
                if at < end:
                    raise Broken(f"the body ended {end - at:,} bytes early")
            except (BotoCoreError, ClientError, Broken, *BODY_ERRORS) as error:
                tries = 1 if at - counted_from >= READ_BYTES else tries + 1
                counted_from = at
                self._give_up_or_wait(error, tries)
                if whole:
                    at = start

    def _give_up_or_wait(self, error: Exception, tries: int) -> None:
        what = f"reading s3://{self._bucket}/{self._key}"
        if self._stopped.is_set():
            raise Stopped("stopped while a document was fetched") from error
        if isinstance(error, (ClientError, BotoCoreError)):  # boto3 has tried it as often as it is worth
            if isinstance(error, ClientError) and code_of(error) in _CHANGED and self._misjudged():
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
        return bool(self._conditions) and found.get("ETag", "").strip('"') == self._etag

    def _body(self, at: int, end: int, whole: bool) -> Iterator[bytes]:
        """The bytes from `at` to `end` as they come. Raises Broken, SourceChanged, RangesIgnored, boto3's errors."""
        part = (at, end) != (0, self._size_bytes) and not whole
        arguments = {"Range": f"bytes={at}-{end - 1}"} if part else {}
        reply = self._client.get_object(Bucket=self._bucket, Key=self._key, **arguments, **self._conditions)
        raw = reply["Body"]._raw_stream  # whatever has come is taken at once; boto3's own reader waits for a full chunk
        try:
            self._require_answer(reply, at, end, part)
            yield from _chunks(raw, end - at)
        except BaseException:
            raw.close()  # what is left of it must not be taken for the next answer
            raise
        raw.drain_conn()  # nothing is left, but http.client does not know until it is asked
        raw.release_conn()

    def _require_answer(self, reply: dict[str, Any], at: int, end: int, part: bool) -> None:
        etag = reply.get("ETag", "").strip('"')
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


def _chunks(raw: Any, size_bytes: int) -> Iterator[bytes]:
    left, since, counted = size_bytes, time.monotonic(), 0
    while left > 0:
        chunk: bytes = raw.read1(READ_BYTES)
        if not chunk:
            return
        if len(chunk) > left:
            raise Broken("the body is longer than it should be")
        left -= len(chunk)
        counted += len(chunk)
        if counted >= READ_BYTES:
            since, counted = time.monotonic(), 0
        elif time.monotonic() - since > SLOWEST_SECONDS:
            raise Broken(f"less than {READ_BYTES:,} bytes came in {SLOWEST_SECONDS:.0f} s")
        yield chunk


def _write_all(fd: int, chunk: bytes, at: int) -> int:
    view = memoryview(chunk)
    try:
        while view:
            written = os.pwrite(fd, view, at)
            at, view = at + written, view[written:]
    except OSError as error:  # not the network's, so nothing to be asked for again
        raise TransientError(Kind.INTERNAL, f"a fetched document cannot be kept: {error.strerror}") from error
    return len(chunk)

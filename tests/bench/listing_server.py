"""A bucket of many synthetic keys that can only be listed, as a process of its own, for benchmarks of listings.

    python -m tests.bench.listing_server --keys 1000000 --prefix in

Its answers are ListObjectsV2 pages as S3 writes them, cut out of one buffer that is written at the start, so that the
time measured is the client's. Number N is the key `PREFIX/FFFFFF/doc-NNNNNNN.pdf`, a thousand to a folder F. Known are
prefix, start-after, max-keys, continuation-token and encoding-type; a delimiter is not. POST /__change?every=100 gives
every hundredth key another ETag. GET and HEAD of an object answer 404. From Python:

    with serving("--keys", "100000") as url:
        change(url, every=100)
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from urllib.parse import quote
from xml.sax.saxutils import escape

from tests.bench import link

_AFTER_ANY = "\x7f"
_LARGEST_PAGE = 1000


def serving(*options: str) -> contextlib.AbstractContextManager[str]:
    """The URL of such a server in a process of its own; see `link.serving`. `link.stats` and `link.reset` apply."""
    return link.serving(*options, module="tests.bench.listing_server")


def change(url: str, every: int) -> None:
    """Give one key in `every` another ETag and another time."""
    link.post(f"{url}/__change?every={every}")


class Keys:
    """The keys and their entries in a listing, all of one width."""

    def __init__(self, count: int, prefix: str) -> None:
        self.count = count
        self.prefix = prefix
        self.width = len(self.entry(0, 0))
        self.entries = bytearray(self._all())
        self._generation = 0

    def key(self, number: int) -> str:
        """A key by its place in the order of keys."""
        return f"{self.prefix}/{number // 1000:06d}/doc-{number:07d}.pdf"

    def entry(self, number: int, generation: int) -> bytes:
        """What a listing says of a key."""
        etag = hashlib.md5(b"%d %d" % (number, generation), usedforsecurity=False).hexdigest()
        return (
            f"<Contents><Key>{self.key(number)}</Key>"
            f"<LastModified>2026-01-{1 + generation % 28:02d}T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag><Size>{100_000 + number % 900_000}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        ).encode()

    def change(self, every: int) -> None:
        """Write the entry of one key in `every` anew."""
        self._generation += 1
        for number in range(0, self.count, every):
            start = number * self.width
            self.entries[start : start + self.width] = self.entry(number, self._generation)

    def under(self, prefix: str) -> tuple[int, int]:
        """The keys with a prefix, [first, end)."""
        numbers = range(self.count)
        return bisect_left(numbers, prefix, key=self.key), bisect_left(numbers, prefix + _AFTER_ANY, key=self.key)

    def after(self, key: str) -> int:
        """The first key that follows another."""
        return bisect_right(range(self.count), key, key=self.key)

    def _all(self) -> bytes:
        return b"".join(self.entry(number, 0) for number in range(self.count))


class Listings:
    """The handler."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.keys = Keys(options.keys, options.prefix)
        self.latency = options.latency
        self._lock = threading.Lock()

    def __call__(self, request: link.Request, connection: link.Connection) -> None:
        if request.path == "/__change":
            with self._lock:
                self.keys.change(int(request.query["every"]))
            connection.answer(200)
        elif request.key:
            connection.error(404, "NoSuchKey", request.method == "GET")
        elif request.method != "GET":
            connection.answer(200)
        elif request.query.get("list-type") != "2" or request.query.get("delimiter"):
            connection.error(501, "NotImplemented")
        else:
            if self.latency:
                time.sleep(self.latency)
            self._page(request, connection)

    def _page(self, request: link.Request, connection: link.Connection) -> None:
        query = request.query
        first, end = self.keys.under(query.get("prefix", ""))
        if token := query.get("continuation-token"):
            first = max(first, int(base64.b64decode(token).split()[1]))
        elif after := query.get("start-after"):
            first = max(first, self.keys.after(after))
        most = min(_LARGEST_PAGE, int(query.get("max-keys", _LARGEST_PAGE)))
        stop = max(first, min(end, first + most))
        opening = "".join(_opening(request, stop - first, most, stop if stop < end else None)).encode()
        closing = b"</ListBucketResult>"
        width = self.keys.width
        length = len(opening) + (stop - first) * width + len(closing)
        connection.head(200, length, True, Content_Type="application/xml")
        connection.client.sendall(opening)
        connection.client.sendall(memoryview(self.keys.entries)[first * width : stop * width])
        connection.client.sendall(closing)


def _opening(request: link.Request, count: int, most: int, following: int | None) -> Iterator[str]:
    """What stands before the entries of a page, in S3's order."""
    query = request.query
    by_url = query.get("encoding-type") == "url"
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    yield f"<Name>{escape(request.path.strip('/'))}</Name><Prefix>{_word(query.get('prefix', ''), by_url)}</Prefix>"
    if token := query.get("continuation-token"):
        yield f"<ContinuationToken>{escape(token)}</ContinuationToken>"
    if after := query.get("start-after"):
        yield f"<StartAfter>{_word(after, by_url)}</StartAfter>"
    if following is not None:
        token = base64.b64encode(f"page {following}".encode()).decode()
        yield f"<NextContinuationToken>{token}</NextContinuationToken>"
    yield f"<KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>"
    if by_url:
        yield "<EncodingType>url</EncodingType>"
    yield f"<IsTruncated>{str(following is not None).lower()}</IsTruncated>"


def _word(text: str, by_url: bool) -> str:
    return quote(text, safe="/") if by_url else escape(text)


def _plain(prefix: str) -> str:
    """A prefix that reads the same in a URL, in XML and in a listing."""
    if not prefix or quote(prefix, safe="/") != prefix:
        raise argparse.ArgumentTypeError("only letters, digits, '/', '-', '_', '.', '~'")
    return prefix.rstrip("/")


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=100_000, help="how many (at most ten million)")
    parser.add_argument("--prefix", type=_plain, default="in", help="what all keys begin with")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each page")
    options = link.arguments(parser)
    link.serve(options.port, Listings(options), options.until_stdin_closes)


if __name__ == "__main__":
    main()

"""An object store behind a link of a given speed, as a process of its own, for benchmarks.

    python -m tests.bench.link --size 67108864 --rate 60000000 --first-byte-seconds 0.03

Every key is an object of `--size` bytes with the same pseudo-random content, or words with `--text`; GET, HEAD, Range,
If-Match, a listing of `--objects` keys. Each connection gets `--rate` bytes a second, 0 for all that the machine can
do. What is PUT is read and dropped: PUT, HEAD, DELETE and listings are answered after `--put-latency` seconds. GET
/__stats says how many requests were in flight at once, POST /__reset starts the count anew. From Python:

    with serving("--size", "1000000", "--rate", "60000000") as url:
        ...
        stats(url)["in_flight_max"]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
LAST_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
_PIECE = 1 << 24
_BLOCK = 1 << 18
_SMALLEST_BLOCK = 1 << 14
_UNPACED_BLOCK = 1 << 23
_STEP_SECONDS = 0.004
_LARGEST_DEBT_SECONDS = 0.1
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def content_pieces(size: int) -> Iterator[bytes]:
    """The content of an object of `size` bytes, piece by piece: the same in every run."""
    source = random.Random(20260101)
    for start in range(0, size, _PIECE):
        yield source.randbytes(_PIECE)[: size - start]


def words(size: int) -> Iterator[bytes]:
    """The content of a text of `size` bytes: few lines, so that it is quickly converted."""
    line = b"word " * 20_000 + b"\n"
    for start in range(0, size, len(line)):
        yield line[: size - start]


@contextlib.contextmanager
def serving(*options: str, module: str = "tests.bench.link") -> Iterator[str]:
    """The URL of a server in a process of its own, which ends with this block or with this process."""
    command = [sys.executable, "-m", module, "--until-stdin-closes", *options]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http"), f"{module} did not start"
            yield url
        finally:
            process.kill()


def stats(url: str) -> dict[str, Any]:
    """What a server counted since its start or the last reset."""
    with urllib.request.urlopen(f"{url}/__stats") as answer:
        return dict(json.load(answer))


def reset(url: str) -> None:
    """Start a server's counts anew."""
    post(f"{url}/__reset")


def post(url: str) -> None:
    """POST without a body."""
    with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
        answer.read()


@dataclass(frozen=True)
class Request:
    """A request whose body has been read; the names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body_md5: str

    @property
    def key(self) -> str:
        """The key as it is in the URL: the path after the bucket."""
        return self.path.lstrip("/").partition("/")[2]


class Connection:
    """What a handler answers with."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client

    def head(self, status: int, length: int, more: bool, **headers: str) -> None:
        """Send the head of an answer (underscores in names are dashes); `more` if a body follows."""
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        text = f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nServer: link\r\n{''.join(lines)}\r\n"
        self.client.sendall(text.encode("latin-1"), socket.MSG_MORE if more else 0)

    def answer(self, status: int, body: bytes = b"", content_type: str = "application/xml", **headers: str) -> None:
        """Send a whole answer."""
        self.head(status, len(body), bool(body), Content_Type=content_type, **headers)
        if body:
            self.client.sendall(body)

    def error(self, status: int, code: str, with_body: bool = True, **headers: str) -> None:
        """Send an S3 error."""
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'.encode()
        self.answer(status, body if with_body else b"", **headers)


Handler = Callable[[Request, Connection], None]


class Counts:
    """How many requests there were, and how many at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        with self._lock:
            self._most: dict[str, int] = {}
            self._total: dict[str, int] = {}

    @contextlib.contextmanager
    def one(self, method: str) -> Iterator[None]:
        """Count a request while the block runs."""
        with self._lock:
            for name in (method, ""):
                self._now[name] = self._now.get(name, 0) + 1
                self._most[name] = max(self._most.get(name, 0), self._now[name])
                self._total[name] = self._total.get(name, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                for name in (method, ""):
                    self._now[name] -= 1

    def as_json(self) -> dict[str, int]:
        """The answer to /__stats."""
        with self._lock:
            return {
                "put_in_flight_max": self._most.get("PUT", 0),
                "get_in_flight_max": self._most.get("GET", 0),
                "in_flight_max": self._most.get("", 0),
                "puts": self._total.get("PUT", 0),
                "gets": self._total.get("GET", 0),
                "requests": self._total.get("", 0),
            }


def serve(port: int, handler: Handler, until_stdin_closes: bool) -> None:
    """Print the URL and answer every connection in a thread of its own, without end."""
    if until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    counts = Counts()
    with socket.create_server((HOST, port), backlog=512) as listener:
        print(f"http://{HOST}:{listener.getsockname()[1]}", flush=True)
        while True:
            client = listener.accept()[0]
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_converse, args=(client, handler, counts), daemon=True).start()


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line with the options that all servers have."""
    parser.add_argument("--port", type=int, default=0, help="0: any that is free, see the URL printed")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this one")
    return parser.parse_args()


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _converse(client: socket.socket, handler: Handler, counts: Counts) -> None:
    with client, client.makefile("rb") as reader, contextlib.suppress(OSError):
        connection = Connection(client)
        while (head := _read_head(reader)) is not None:
            method, target, headers = head
            parts = urlsplit(target)
            if parts.path == "/__stats":
                connection.answer(200, json.dumps(counts.as_json()).encode(), "application/json")
                continue
            if parts.path == "/__reset":
                counts.reset()
                connection.answer(200)
                continue
            with counts.one(method):
                body_md5 = _read_body(client, reader, headers)
                query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                handler(Request(method, parts.path, query, headers, body_md5), connection)


def _read_head(reader: BinaryIO) -> tuple[str, str, dict[str, str]] | None:
    first = reader.readline().decode("latin-1").split(" ")
    if len(first) < 3:
        return None
    headers = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return first[0], first[1], headers


def _read_body(client: socket.socket, reader: BinaryIO, headers: Mapping[str, str]) -> str:
    """Read a request's body; returns its MD5 in hex."""
    if "expect" in headers:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    md5 = hashlib.md5(usedforsecurity=False)
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int(reader.readline().split(b";")[0], 16):
            md5.update(reader.read(size))
            reader.readline()
        while reader.readline().strip():
            pass
    left = int(headers.get("content-length", 0))
    while left and (block := reader.read(min(left, _PIECE))):
        md5.update(block)
        left -= len(block)
    return md5.hexdigest()


class Objects:
    """The handler of an object store whose objects all have the same content."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.memory = os.memfd_create("object")
        self.size = options.size
        md5 = hashlib.md5(usedforsecurity=False)
        for piece in words(self.size) if options.text else content_pieces(self.size):
            md5.update(piece)
            os.write(self.memory, piece)
        self.etag = f'"{md5.hexdigest()}"'
        ending = "txt" if options.text else "bin"
        self.keys = [f"object-{number:06d}.{ending}" for number in range(options.objects)]

    def __call__(self, request: Request, connection: Connection) -> None:
        if request.method == "GET" and "list-type" not in request.query and request.key:
            _wait(self.options.first_byte_seconds)
            self._object(request, connection)
            return
        _wait(self.options.put_latency)
        if request.method == "PUT":
            connection.answer(200, ETag=f'"{request.body_md5}"')
        elif request.method == "DELETE":
            connection.answer(204)
        elif request.method == "HEAD" and request.key:
            self._object(request, connection)
        elif request.method == "GET":
            connection.answer(200, self._listing(request))
        else:
            connection.answer(200)

    def _object(self, request: Request, connection: Connection) -> None:
        with_body = request.method == "GET"
        if self.options.absent and request.key.startswith(self.options.absent):
            connection.error(404, "NoSuchKey", with_body)
            return
        if request.headers.get("if-match", "*") not in ("*", self.etag):
            connection.error(412, "PreconditionFailed", with_body)
            return
        wanted = _range(request.headers.get("range"), self.size)
        if wanted is None:
            connection.error(416, "InvalidRange", with_body, Content_Range=f"bytes */{self.size}")
            return
        start, end = wanted
        headers = {"ETag": self.etag, "Last_Modified": LAST_MODIFIED, "Accept_Ranges": "bytes"}
        if "range" in request.headers:
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{self.size}"
        connection.head(
            206 if "range" in request.headers else 200,
            end - start,
            with_body and end > start,
            Content_Type="application/octet-stream",
            **headers,
        )
        if with_body:
            self._send(connection.client.fileno(), start, end)

    def _send(self, out: int, start: int, end: int) -> None:
        rate = self.options.rate
        block = max(_SMALLEST_BLOCK, min(_BLOCK, int(rate * _STEP_SECONDS))) if rate else _UNPACED_BLOCK
        due = time.monotonic()
        while start < end:
            stop = min(end, start + block)
            if rate:
                due = _paced(due + (stop - start) / rate)
            while start < stop:
                start += os.sendfile(out, self.memory, start, stop - start)

    def _listing(self, request: Request) -> bytes:
        """All keys under the prefix, on one page."""
        prefix = request.query.get("prefix", "")
        keys = [key for key in self.keys if key.startswith(prefix)]
        etag = self.etag.replace('"', "&quot;")
        entries = [
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>"
            f"<Size>{self.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in keys
        ]
        name = request.path.strip("/").partition("/")[0]
        return (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult {_NAMESPACE}><Name>{name}</Name>'
            f"<Prefix>{prefix}</Prefix><KeyCount>{len(keys)}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>"
        ).encode()


def _wait(seconds: float) -> None:
    if seconds:
        time.sleep(seconds)


def _paced(due: float) -> float:
    """Wait until a block is due; returns when it was. A client that reads slowly cannot make up for much."""
    now = time.monotonic()
    if due > now:
        time.sleep(due - now)
    return max(due, now - _LARGEST_DEBT_SECONDS)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes [start, end) that a Range header asks for; None if there are none such."""
    if header is None or not header.startswith("bytes=") or "," in header:
        return 0, size
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not first:
        return (max(0, size - int(last)), size) if size and int(last) else None
    end = min(size, int(last) + 1) if last else size
    return (int(first), end) if int(first) < end else None


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of every object")
    parser.add_argument("--rate", type=float, default=0, help="bytes a second on each connection; 0: no limit")
    parser.add_argument("--first-byte-seconds", type=float, default=0.0, help="before the answer to a GET")
    parser.add_argument("--put-latency", type=float, default=0.0, help="seconds before any other answer")
    parser.add_argument("--objects", type=int, default=1, help="keys that a listing shows (at most 1000)")
    parser.add_argument("--text", action="store_true", help="objects are texts, and their keys end in .txt")
    parser.add_argument("--absent", default="", help="a prefix of keys that GET and HEAD do not find")
    options = arguments(parser)
    serve(options.port, Objects(options), options.until_stdin_closes)


if __name__ == "__main__":
    main()

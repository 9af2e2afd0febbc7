"""An HTTP/1.1 proxy between a client and an object store that misbehaves when a test says so.

    with FaultProxy(server.endpoint_url) as proxy:
        fault = proxy.inject(Fault("cut", method="GET", after_bytes=1000))
        ...  # a client of proxy.url
        assert fault.fired.wait(10)

Requests are forwarded byte for byte, the Host header included, since signatures cover it. Every request has a
connection to the server of its own, so that no fault leaks into the next request.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Literal
from urllib.parse import urlsplit

Kind = Literal[
    "refuse",  # the connection closes without an answer, at accept already where every request matches
    "status",  # an S3 error instead of an answer: `status`, `code`
    "stall_before_headers",  # nothing comes until the fault is released, the client goes away or the proxy closes
    "stall",  # headers and `after_bytes` of the body, then as above
    "cut",  # headers and `after_bytes` of the body, then the connection closes
    "reset",  # the same with a TCP reset
    "truncate",  # Content-Length says `after_bytes`, and so many come
    "long",  # Content-Length says `extra_bytes` more than come, then the connection closes
    "drip",  # after `after_bytes` of the body one byte every `seconds`
    "wrong_etag",  # the ETag header is `etag`
]
_BEFORE_FORWARDING = ("refuse", "status", "stall_before_headers")
_BLOCK = 1 << 16
_POLL_SECONDS = 0.02
_UPSTREAM_SECONDS = 120.0


@dataclass
class Fault:
    """What the next `times` matching requests meet (None: all, until `clear`), after `skip` that go well.

    A request matches by its method, a regular expression searched in path and query, and a predicate on its headers
    (names in lower case). The kinds that answer nothing keep the request from the server, unless `reaches_server`:
    then the server does its work, and only the answer is lost.
    """

    kind: Kind
    method: str | None = None
    path: str = ""
    headers: Callable[[Mapping[str, str]], bool] | None = None
    times: int | None = 1
    skip: int = 0
    after_bytes: int = 0
    extra_bytes: int = 1024
    seconds: float = 0.05
    status: int = 503
    code: str = "SlowDown"
    etag: str = f'"{"0" * 32}"'
    reaches_server: bool = False
    fired: threading.Event = field(default_factory=threading.Event, repr=False)
    released: threading.Event = field(default_factory=threading.Event, repr=False)
    count: int = 0

    def matches(self, request: _Head) -> bool:
        """Whether a request is one of those meant, however often the fault has fired."""
        return (
            (self.method is None or self.method == request.method)
            and re.search(self.path, request.target) is not None
            and (self.headers is None or self.headers(request.headers))
        )

    def take(self) -> bool:
        """Count a match; whether it meets the fault."""
        if self.times is not None and self.count >= self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.count += 1
        self.fired.set()
        return True


@dataclass
class Seen:
    """A request as it arrived, and the status that the client was sent: 0 for none, or none yet."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int = 0


@dataclass(frozen=True)
class _Head:
    """The first line and the headers of a request or an answer; the names of headers are in lower case."""

    raw: bytes
    headers: Mapping[str, str]

    @property
    def first_line(self) -> list[str]:
        return self.raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @property
    def method(self) -> str:
        return self.first_line[0]

    @property
    def target(self) -> str:
        return self.first_line[1]

    @property
    def status(self) -> int:
        return int(self.first_line[1])

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    def changed(self, **headers: str | None) -> bytes:
        """The raw head with these headers (underscores for dashes) set, or removed where None."""
        changes = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        first, *lines = self.raw[:-4].split(b"\r\n")
        kept = [line for line in lines if line.split(b":", 1)[0].decode("latin-1").lower() not in changes]
        added = [f"{name}: {value}".encode("latin-1") for name, value in changes.items() if value is not None]
        return b"\r\n".join([first, *kept, *added]) + b"\r\n\r\n"


class FaultProxy:
    """A proxy to `upstream_url` at `url`; every request waits `latency_seconds` before it is answered."""

    def __init__(self, upstream_url: str, latency_seconds: float = 0.0) -> None:
        parts = urlsplit(upstream_url)
        self.latency_seconds = latency_seconds
        self.seen: list[Seen] = []
        self.in_flight_max: Counter[str] = Counter()
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._in_flight: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self._sockets: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self._acceptor = threading.Thread(target=self._accept, name="fault-proxy")
        self._acceptor.start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def inject(self, fault: Fault) -> Fault:
        """Let matching requests meet a fault from now on; the first fault that matches counts."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults; requests that stall at the moment go on."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.released.set()

    def requests(self, method: str | None = None, path: str = "") -> list[Seen]:
        """The requests so far, by method and a regular expression for path and query."""
        with self._lock:
            seen = list(self.seen)
        return [one for one in seen if method in (None, one.method) and re.search(path, one.path)]

    def close(self) -> None:
        """End every connection, and wait for the threads."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            if self._refuses_connections():
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(client,), name="fault-proxy-connection")
            with self._lock:
                self._sockets.add(client)
                self._threads = {one for one in self._threads if one.is_alive()} | {thread}
                thread.start()

    def _refuses_connections(self) -> bool:
        with self._lock:
            return any(
                fault.kind == "refuse"
                and not (fault.method or fault.path or fault.headers or fault.skip or fault.reaches_server)
                and fault.take()
                for fault in self._faults
            )

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rb") as reader, contextlib.suppress(OSError):
                while not self._closing.is_set() and (request := _read_head(reader)) is not None:
                    with self._counted(request) as seen:
                        goes_on = _Exchange(self, client, reader, request, seen).run(self._fault_for(request))
                    if not goes_on:
                        return
        finally:
            with self._lock:
                self._sockets.discard(client)

    def _fault_for(self, request: _Head) -> Fault | None:
        with self._lock:
            return next((fault for fault in self._faults if fault.matches(request) and fault.take()), None)

    @contextlib.contextmanager
    def _counted(self, request: _Head) -> Iterator[Seen]:
        seen = Seen(request.method, request.target, request.headers)
        with self._lock:
            self.seen.append(seen)
            for name in (seen.method, "*"):
                self._in_flight[name] += 1
                self.in_flight_max[name] = max(self.in_flight_max[name], self._in_flight[name])
        try:
            yield seen
        finally:
            with self._lock:
                self._in_flight.subtract((seen.method, "*"))

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A connection to the server, ended when the proxy closes."""
        with socket.create_connection(self._upstream, timeout=_UPSTREAM_SECONDS) as upstream:
            with self._lock:
                if self._closing.is_set():
                    raise ConnectionAbortedError
                self._sockets.add(upstream)
            try:
                yield upstream
            finally:
                with self._lock:
                    self._sockets.discard(upstream)

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than the proxy is open."""
        if seconds and self._closing.wait(seconds):
            raise ConnectionAbortedError

    def stall(self, client: socket.socket, fault: Fault) -> None:
        """Wait until the fault is released; raises if the client goes away or the proxy closes before."""
        while not fault.released.is_set():
            if _is_gone(client):
                raise ConnectionAbortedError
            self.pause(_POLL_SECONDS)


class _Exchange:
    """One request and its answer."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, reader: BinaryIO, request: _Head, seen: Seen) -> None:
        self.proxy, self.client, self.reader, self.request, self.seen = proxy, client, reader, request, seen

    def run(self, fault: Fault | None) -> bool:
        """Answer; returns whether the connection can take another request."""
        if self.request.headers.get("expect", "").lower() == "100-continue":
            self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        early = fault if fault is not None and fault.kind in _BEFORE_FORWARDING and not fault.reaches_server else None
        if early is not None and (goes_on := self._instead(early)) is not None:
            return goes_on
        with self.proxy.connected() as upstream, upstream.makefile("rb") as answers:
            self._forward(upstream)
            head = _final_head(answers)
            if head is None:
                return False
            self.proxy.pause(self.proxy.latency_seconds)
            if fault is not None and fault is not early and (goes_on := self._instead(fault)) is not None:
                return goes_on
            if fault is None or fault.kind in _BEFORE_FORWARDING:
                return self._relay(head, answers)
            return self._answer_badly(fault, head, answers)

    def _forward(self, upstream: socket.socket) -> None:
        """Send the request on; a server may answer, and close, before it has read the whole body."""
        upstream.sendall(self.request.raw)
        upstream_open = True
        for block in _raw_body(self.reader, self.request, default=0):
            if upstream_open:
                try:
                    upstream.sendall(block)
                except ConnectionError:
                    upstream_open = False

    def _instead(self, fault: Fault) -> bool | None:
        """What a fault does instead of an answer: whether the connection goes on; None: an answer follows."""
        if fault.kind == "refuse":
            return False
        if fault.kind == "status":
            if not fault.reaches_server:
                for _ in _raw_body(self.reader, self.request, default=0):
                    pass
                self.proxy.pause(self.proxy.latency_seconds)
            self._send_error(fault)
            return True
        if fault.kind == "stall_before_headers":
            self.proxy.stall(self.client, fault)
        return None

    def _relay(self, head: _Head, answers: BinaryIO) -> bool:
        self._send_head(head.status, head.raw)
        for block in self._body(head, answers, raw=True):
            self.client.sendall(block)
        endless = not head.chunked and "content-length" not in head.headers and self._has_body(head)
        return not endless and head.headers.get("connection", "").lower() != "close"

    def _answer_badly(self, fault: Fault, head: _Head, answers: BinaryIO) -> bool:
        blocks = self._body(head, answers, raw=False)
        length = int(head.headers.get("content-length", -1))
        if length < 0:
            content = b"".join(blocks)
            blocks, length = iter([content]), len(content)
        head = _parsed(head.changed(transfer_encoding=None, content_length=str(length)))
        if fault.kind == "wrong_etag":
            self._send_head(head.status, head.changed(etag=fault.etag))
            return self._send(blocks, length)
        if fault.kind == "truncate":
            shorter = min(length, fault.after_bytes)
            self._send_head(head.status, head.changed(content_length=str(shorter)))
            return self._send(blocks, shorter)
        if fault.kind == "long":
            self._send_head(head.status, head.changed(content_length=str(length + fault.extra_bytes)))
            self._send(blocks, length)
            return False
        self._send_head(head.status, head.raw)
        first, rest = _split(blocks, fault.after_bytes)
        self._send(iter([first]), len(first))
        return self._after_some_bytes(fault, rest, length - len(first))

    def _after_some_bytes(self, fault: Fault, rest: Iterator[bytes], length: int) -> bool:
        if length <= 0:  # that was all of it
            return True
        if fault.kind == "stall":
            self.proxy.stall(self.client, fault)
            return self._send(rest, length)
        if fault.kind == "drip":
            for byte in (block[at : at + 1] for block in rest for at in range(len(block))):
                self.proxy.pause(fault.seconds)
                self.client.sendall(byte)
            return True
        if fault.kind == "reset":
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _has_body(self, head: _Head) -> bool:
        return self.request.method != "HEAD" and head.status not in (204, 304)

    def _body(self, head: _Head, answers: BinaryIO, *, raw: bool) -> Iterator[bytes]:
        """The blocks of an answer's body; `raw` keeps the framing of a chunked one."""
        if not self._has_body(head):
            return iter(())
        return _raw_body(answers, head, default=-1) if raw or not head.chunked else _chunks(answers)

    def _send_head(self, status: int, raw: bytes) -> None:
        self.seen.status = status
        self.client.sendall(raw)

    def _send(self, blocks: Iterator[bytes], length: int) -> bool:
        """Send `length` bytes of a body, none for HEAD; the connection goes on."""
        for block in blocks:
            if length <= 0:
                break
            self.client.sendall(block[:length])
            length -= len(block)
        return True

    def _send_error(self, fault: Fault) -> None:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{fault.code}</Code><Message>injected</Message><RequestId>1</RequestId></Error>"
        ).encode()
        head = (
            f"HTTP/1.1 {fault.status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._send_head(fault.status, head.encode("latin-1"))
        self._send(iter([b"" if self.request.method == "HEAD" else body]), len(body))


def _parsed(raw: bytes) -> _Head:
    lines = [line.decode("latin-1").partition(":") for line in raw.split(b"\r\n")[1:] if line]
    return _Head(raw, {name.strip().lower(): value.strip() for name, _, value in lines})


def _read_head(reader: BinaryIO) -> _Head | None:
    """The next head; None at the end of the connection."""
    raw = b""
    while line := reader.readline():
        raw += line
        if raw.endswith(b"\r\n\r\n"):
            return _parsed(raw)
    return None


def _final_head(answers: BinaryIO) -> _Head | None:
    """The head of the answer, past any 100 Continue."""
    head = _read_head(answers)
    while head is not None and head.status < 200:
        head = _read_head(answers)
    return head


def _raw_body(reader: BinaryIO, head: _Head, default: int) -> Iterator[bytes]:
    """A body as it comes, its framing included; without a length it has `default` bytes, -1 for all until the end."""
    if head.chunked:
        for chunk in _chunks(reader):
            yield b"%x\r\n%b\r\n" % (len(chunk), chunk)
        yield b"0\r\n\r\n"
        return
    left = int(head.headers.get("content-length", default))
    while left and (block := reader.read(min(left, _BLOCK) if left > 0 else _BLOCK)):
        left -= len(block) if left > 0 else 0
        yield block


def _chunks(reader: BinaryIO) -> Iterator[bytes]:
    """The contents of a chunked body; its trailers are dropped."""
    while size := int(reader.readline().split(b";")[0] or b"0", 16):
        yield reader.read(size)
        reader.readline()
    while reader.readline().strip():
        pass


def _split(blocks: Iterator[bytes], count: int) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes of a body, and the rest."""
    first = b""
    while len(first) < count and (block := next(blocks, b"")):
        first += block

    def rest() -> Iterator[bytes]:
        if first[count:]:
            yield first[count:]
        yield from blocks

    return first[:count], rest()


def _is_gone(client: socket.socket) -> bool:
    """Whether the other side has closed, whatever it sent before."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return bool(poll.poll(0))

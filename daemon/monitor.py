"""A web server for monitoring: a few pages, for GET and HEAD, with a bound on everything a client could hold up.

A client that is slow or hostile is dropped after `CLIENT_SECONDS`; at most `CLIENTS` are served at once. It speaks no
TLS and knows no users: it is meant for the loopback or a network that is trusted.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from daemon.errors import UsageError

CLIENT_SECONDS = 10.0
CLIENTS = 8
REQUEST_BYTES = 1 << 14
BACKLOG = 16
AGAIN_SECONDS = 1.0
TEXT = "text/plain; charset=utf-8"
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
REASONS[503] = "Service Unavailable"


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered."""

    content: bytes
    status: int = 200
    media_type: str = TEXT


class MonitorServer:
    """Answers requests in threads of its own. `start` raises UsageError where it cannot listen."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self._slots = threading.BoundedSemaphore(CLIENTS)
        self._socket: socket.socket | None = None
        self._stopped = threading.Event()

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Listen."""
        try:
            self._socket = bound(self._host, self._port)
            self._socket.listen(BACKLOG)
        except OSError as error:
            self.close()
            raise UsageError(
                f"metrics.listen: cannot listen on {self._host} port {self._port}: {error.strerror}",
                "Name an address of this machine and a port that nobody else has.",
            ) from error

    def run(self) -> None:
        """Accept until closed."""
        assert self._socket is not None
        while not self._stopped.is_set():
            try:
                client, _ = self._socket.accept()
            except OSError:  # closed, or the process has no descriptor to spare: monitoring is no reason to end
                if self._stopped.wait(AGAIN_SECONDS):
                    return
                continue
            if not self._slots.acquire(blocking=False):
                client.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(client,), name="monitor-client", daemon=True).start()
            except RuntimeError:  # no thread to be had: no reason to end either
                self._slots.release()
                client.close()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._stopped.set()
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it does not listen
            self._socket.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                method, target = _request(client, time.monotonic() + CLIENT_SECONDS)
                page = self._page(method, target)
                client.settimeout(CLIENT_SECONDS)
                client.sendall(_head(page) + (b"" if method == "HEAD" else page.content))
        except OSError:
            pass  # the client's trouble, not ours
        finally:
            self._slots.release()

    def _page(self, method: str, target: str) -> Page:
        if not method:
            return Page(b"not understood\n", 400)
        if method not in ("GET", "HEAD"):
            return Page(b"only GET and HEAD\n", 405)
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return Page(f"there are: {' '.join(self._pages)}\n".encode(), 404)
        try:
            return page()
        except Exception as error:
            return Page(f"{type(error).__name__}\n".encode(), 500)


def bound(host: str, port: int) -> socket.socket:
    """A socket at this address, which nobody listens at yet. Raises OSError.

    A name that stands for addresses of both kinds, as `localhost` may, is taken for the one of IPv4.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
    except OSError:
        server.close()
        raise
    return server


def health(trouble: str | None) -> Page:
    """Of `/healthz`."""
    return Page(b"ok\n") if trouble is None else Page(f"{trouble}\n".encode(), 503)


def _head(page: Page) -> bytes:
    return (
        f"HTTP/1.1 {page.status} {REASONS[page.status]}\r\nContent-Type: {page.media_type}\r\n"
        f"Content-Length: {len(page.content)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode()


def _request(client: socket.socket, deadline: float) -> tuple[str, str]:
    """Method and target of a request, once it has come to its end; both empty where it is none."""
    received = bytearray()
    while b"\r\n\r\n" not in received and b"\n\n" not in received:
        client.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = client.recv(REQUEST_BYTES)
        if not chunk or len(received) + len(chunk) > REQUEST_BYTES:
            return "", ""
        received += chunk
    words = received.split(b"\n", 1)[0].decode("latin-1").split()
    return (words[0], words[1]) if len(words) == 3 and words[2].startswith("HTTP/1.") else ("", "")

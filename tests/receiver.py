"""A receiver of webhooks: a real HTTP server on 127.0.0.1 that can also misbehave, and be down."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG = -1
"""As a status: takes the request and never answers."""
DRIP = -2
"""Answers one byte after the other, for ever."""
HANG_UP = -3
"""Closes the connection without a word."""


class Request:
    """What was posted."""

    def __init__(self, path: str, headers: Mapping[str, str], body: bytes, connection: int) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.connection = connection
        """Which of the connections it came by."""

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Receiver:
    """Answers with `status`, until that is changed; `headers` go along. Thread-safe."""

    def __init__(self, status: int = 204, tls: ssl.SSLContext | None = None) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self.requests: list[Request] = []
        """All that came, answered or not."""
        self.accepted: list[Request] = []
        """Those that were answered with 2xx."""
        self.connections = 0
        self._tls = tls
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before if it has been down."""
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be down: connections are refused, those that hang are let go."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self._released = threading.Event()

    def wait_until_released(self) -> None:
        self._released.wait(60)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that were taken, in the order in which they came."""
        return [request.event for request in list(self.accepted)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hung up knows why."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            receiver.connections += 1
            self.number = receiver.connections

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.path, dict(self.headers), body, self.number)
            receiver.requests.append(request)
            status = receiver.status
            if status == HANG:
                receiver.wait_until_released()
                self.close_connection = True
            elif status == DRIP:
                self._drip()
            elif status == HANG_UP:
                self.close_connection = True
            else:
                if 200 <= status < 300:
                    receiver.accepted.append(request)
                self.send_response(status)
                for key, value in {"Content-Length": "0", **receiver.headers}.items():
                    self.send_header(key, value)
                self.end_headers()

        def _drip(self) -> None:
            pause = threading.Event()
            while True:  # until the other side has had enough
                self.wfile.write(b"H")
                self.wfile.flush()
                pause.wait(0.02)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def receiving(status: int = 204, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver that is up."""
    receiver = Receiver(status, tls)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()

"""Tells a server: a POST with the JSON of the event, signed where there is a secret. Any 2xx means delivered.

Speaks HTTP/1.1 to the very address that is configured: no redirect is followed and no proxy asked; certificates are
verified. One deadline holds for all of a delivery, so that a server that drips its answer holds up nothing for long.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daemon import __version__
from daemon.model import printable
from daemon.outbox import Event
from daemon.targets.base import Undelivered

if TYPE_CHECKING:
    from daemon.settings import Notify

ANSWER_SECONDS = 10.0
CONNECT_SECONDS = 5.0
BODY_SECONDS = 1.0
ANSWER_BYTES = 1 << 16
SECRET_BYTES = 4096
SHOWN_CHARACTERS = 200
PORTS = {"http": 80, "https": 443}


class Webhook:
    """A `targets.base.Target`."""

    def __init__(
        self,
        url: str,
        secret_file: str | None = None,
        clock: Callable[[], float] = time.time,
        answer_seconds: float = ANSWER_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme.lower()
        self._host = parts.hostname or ""
        self._port = parts.port or PORTS[self._scheme]
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._named = parts.netloc
        self._secret_file = secret_file
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._tls = tls
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    @classmethod
    def configured(cls, settings: Notify) -> Webhook:
        assert settings.webhook is not None
        return cls(settings.webhook, settings.secret_file)

    @property
    def address(self) -> str:
        return f"{self._scheme}://{self._named}"

    def deliver(self, event: Event) -> None:
        body = event.payload.encode()
        request = self._head(body) + body
        deadline = time.monotonic() + self._answer_seconds
        status = self._status(request, deadline)
        if not 200 <= status < 300:
            raise Undelivered(f"answered {status}" + (" (redirects are not followed)" if 300 <= status < 400 else ""))

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                _shut_down(self._socket)

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _head(self, body: bytes) -> bytes:
        lines = {
            "Host": self._named,
            "User-Agent": f"convertd/{__version__}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **self._signature(body),
        }
        head = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
        return f"POST {self._path} HTTP/1.1\r\n{head}\r\n".encode("ascii")

    def _signature(self, body: bytes) -> dict[str, str]:
        if self._secret_file is None:
            return {}
        timestamp = str(int(self._clock()))
        digest = hmac.new(_secret(self._secret_file), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        return {"X-Convertd-Timestamp": timestamp, "X-Convertd-Signature": f"sha256={digest}"}

    def _status(self, request: bytes, deadline: float) -> int:
        """The status of the answer. Raises Undelivered where there is none."""
        if self._socket is not None:
            with suppress(ConnectionError):  # the server may have closed it meanwhile
                return self._exchange(request, deadline)
        try:
            return self._exchange(request, deadline)
        except ConnectionError as error:
            raise Undelivered(_words(error)) from error

    def _exchange(self, request: bytes, deadline: float) -> int:
        """Raises ConnectionError where the server hung up, Undelivered for all else."""
        kept = False
        try:
            end = self._connected(deadline)
            end.settimeout(_left(deadline))
            end.sendall(request)
            answer = _Answer(end, deadline)
            with http.client.HTTPResponse(answer, method="POST") as response:  # type: ignore[arg-type]
                response.begin()
                answer.hurry(BODY_SECONDS)
                kept = _drained(response)
                return response.status
        except TimeoutError:
            raise Undelivered(f"did not answer within {self._answer_seconds:g} s") from None
        except ConnectionError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Undelivered(_words(error)) from error
        finally:
            if not kept:
                self.close()

    def _connected(self, deadline: float) -> socket.socket:
        self._raise_if_aborted()
        if self._socket is None:
            self._socket = self._connect(deadline)
        self._raise_if_aborted()  # `abort` may have looked before there was a socket
        return self._socket

    def _connect(self, deadline: float) -> socket.socket:
        end = self._reach(deadline)
        try:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(_left(deadline))
            return self._secured(end) if self._scheme == "https" else end
        except BaseException:
            end.close()
            raise

    def _secured(self, end: socket.socket) -> ssl.SSLSocket:
        """A certificate that is refused has those that are trusted read anew for the next time: they may be newer."""
        tls = self._tls = self._tls or ssl.create_default_context()
        try:
            return tls.wrap_socket(end, server_hostname=self._host)
        except ssl.SSLCertVerificationError:
            self._tls = None
            raise

    def _reach(self, deadline: float) -> socket.socket:
        """Connect to the first of the host's addresses that answers; all of them share the deadline."""
        refusal: OSError = OSError("the host has no address")
        for family, kind, _, _, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            self._raise_if_aborted()
            end = socket.socket(family, kind)
            try:
                end.settimeout(min(CONNECT_SECONDS, _left(deadline)))
                end.connect(address)
            except OSError as error:
                end.close()
                refusal = error
            else:
                return end
        raise refusal

    def _raise_if_aborted(self) -> None:
        with self._lock:
            if self._aborted:
                raise Undelivered("stopped")


class _Answer(io.RawIOBase):
    """What comes from the socket, as `http.client` reads it: no read goes beyond the deadline."""

    def __init__(self, end: socket.socket, deadline: float) -> None:
        self._end = end
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        """What `http.client` asks of a socket."""
        return io.BufferedReader(self)

    def hurry(self, seconds: float) -> None:
        """Allow so much time at most from now on."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._end.settimeout(_left(self._deadline))
        return self._end.recv_into(buffer)


def _drained(response: http.client.HTTPResponse) -> bool:
    """Whether the whole answer was read, so that the connection can be used again. What it says does not matter."""
    try:
        return len(response.read(ANSWER_BYTES)) < ANSWER_BYTES and not response.will_close
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _words(error: Exception) -> str:
    """What went wrong. Some of it may be the server's own words, of any length."""
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return printable(words[:SHOWN_CHARACTERS])


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _secret(path: str) -> bytes:
    """Read anew each time: it may be replaced while the daemon runs. Without waiting: a FIFO might never be filled."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            secret = os.read(fd, SECRET_BYTES).strip()
        finally:
            os.close(fd)
    except OSError as error:
        raise Undelivered(f"secret_file cannot be read: {error.strerror}") from error
    if not secret:
        raise Undelivered("secret_file is empty")
    return secret


def _shut_down(end: socket.socket) -> None:
    """Have whoever reads from it see the end. Not the method of an SSLSocket, which would take its state away."""
    try:
        socket.socket.shutdown(end, socket.SHUT_RDWR)
    except OSError:
        pass  # closed already

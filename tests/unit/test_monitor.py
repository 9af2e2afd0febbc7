"""The web server for monitoring: its pages, and clients that misbehave."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from daemon import monitor
from daemon.errors import UsageError
from daemon.monitor import CLIENTS, MonitorServer, Page, health
from tests.harness import until


class Trouble:
    """What `/healthz` says."""

    text: str | None = None


def broken() -> Page:
    raise RuntimeError("hunter2")


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def server(trouble: Trouble) -> Iterator[MonitorServer]:
    pages = {"/metrics": lambda: Page(b"a 1\n"), "/healthz": lambda: health(trouble.text), "/broken": broken}
    made = MonitorServer("127.0.0.1", 0, pages)
    made.start()
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.close()
    thread.join(30)
    assert not thread.is_alive()


def ask(server: MonitorServer, target: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, target)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def raw(server: MonitorServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(request)
        received = b""
        while chunk := client.recv(1 << 16):
            received += chunk
    return received


def test_pages(server: MonitorServer) -> None:
    assert ask(server, "/metrics") == (200, b"a 1\n")
    assert ask(server, "/metrics?name[]=a") == (200, b"a 1\n")
    assert ask(server, "/metrics", "HEAD") == (200, b"")
    assert ask(server, "/") == (404, b"there are: /metrics /healthz /broken\n")
    assert ask(server, "/metrics", "POST") == (405, b"only GET and HEAD\n")
    assert ask(server, "/broken") == (500, b"RuntimeError\n")


def test_health(server: MonitorServer, trouble: Trouble) -> None:
    assert ask(server, "/healthz") == (200, b"ok\n")
    trouble.text = "the writer has carried out nothing"
    assert ask(server, "/healthz") == (503, b"the writer has carried out nothing\n")


@pytest.mark.parametrize("request_", [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / SPDY/3\r\n\r\n", b"\xff" * 20_000])
def test_garbage_is_refused(server: MonitorServer, request_: bytes) -> None:
    try:
        assert raw(server, request_).startswith(b"HTTP/1.1 400 ")
    except ConnectionError:
        pass  # it did not listen to the end
    assert ask(server, "/metrics")[0] == 200


def test_clients_that_say_nothing_hold_up_nobody_for_long(
    server: MonitorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "CLIENT_SECONDS", 0.2)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3 * CLIENTS)]
    try:

        def answered() -> bool:
            try:
                return ask(server, "/metrics")[0] == 200
            except (ConnectionError, http.client.HTTPException):
                return False  # all places are taken just now

        until(answered, "somebody else is served")
    finally:
        for client in silent:
            client.close()


def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "CLIENT_SECONDS", 0.2)
    large = MonitorServer("127.0.0.1", 0, {"/metrics": lambda: Page(bytes(50 << 20))})
    large.start()
    thread = threading.Thread(target=large.run)
    thread.start()
    with socket.create_connection(("127.0.0.1", large.port)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        until(lambda: all(t.name != "monitor-client" for t in threading.enumerate()), "its thread ends")
    large.close()
    thread.join(30)


def test_no_thread_to_be_had_ends_nothing(server: MonitorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(CLIENTS + 1):
            assert raw(server, b"") == b""
    assert ask(server, "/metrics")[0] == 200


def test_a_port_that_is_taken_is_said_so(server: MonitorServer) -> None:
    second = MonitorServer("127.0.0.1", server.port, {})
    with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1 port {server.port}: Address already in use"):
        second.start()


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    made = MonitorServer("::1", 0, {})
    try:
        made.start()
    except UsageError:
        pytest.skip("no IPv6 here")
    assert made.port
    made.close()

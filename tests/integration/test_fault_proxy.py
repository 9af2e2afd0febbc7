"""The fault proxy does to a client what it is told, and nothing else."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.fault_proxy import Fault, FaultProxy
from tests.harness import until
from tests.servers import Bucket, S3Server

BODY = bytes(range(256)) * 40
SECONDS = 10.0


class Store(BaseHTTPRequestHandler):
    """Answers GET with BODY, in chunks under /chunked, and remembers what is PUT."""

    protocol_version = "HTTP/1.1"
    written: list[bytes] = []  # noqa: RUF012 - one per test, see the fixture

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("ETag", '"right"')
        if self.path.startswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
            return
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(BODY)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.written.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def upstream() -> Iterator[str]:
    Store.written = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(upstream: str) -> Iterator[FaultProxy]:
    with FaultProxy(upstream) as one:
        yield one
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fault-proxy")]


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=SECONDS)
    yield connection
    connection.close()


def fetch(client: http.client.HTTPConnection, path: str = "/key", method: str = "GET") -> bytes:
    client.request(method, path)
    return client.getresponse().read()


def fetch_partly(client: http.client.HTTPConnection, path: str = "/key") -> bytes:
    """What came before the body broke off."""
    client.request("GET", path)
    with pytest.raises(http.client.IncompleteRead) as broken, client.getresponse() as answer:
        answer.read()
    return bytes(broken.value.partial)


def test_without_a_fault_everything_passes_on_one_connection(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    assert fetch(client) == BODY
    assert fetch(client, "/chunked") == BODY
    assert fetch(client, method="HEAD") == b""
    client.request("PUT", "/new", b"words", {"Expect": "100-continue"})
    assert client.getresponse().read() == b""
    assert Store.written == [b"words"]
    assert [(seen.method, seen.path, seen.status) for seen in proxy.seen] == [
        ("GET", "/key", 200),
        ("GET", "/chunked", 200),
        ("HEAD", "/key", 200),
        ("PUT", "/new", 200),
    ]
    assert proxy.seen[0].headers["host"] == urlsplit(proxy.url).netloc


def test_a_fault_meets_the_requests_that_match_and_no_others(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    ranged = proxy.inject(Fault("status", headers=lambda headers: "range" in headers, times=None))
    second = proxy.inject(Fault("status", method="GET", path="/key$", skip=1, status=403, code="AccessDenied"))
    assert fetch(client) == BODY
    assert not second.fired.is_set()
    assert b"<Code>AccessDenied</Code>" in fetch(client)
    assert fetch(client) == BODY
    client.request("GET", "/key", headers={"Range": "bytes=0-1"})
    assert b"<Code>SlowDown</Code>" in client.getresponse().read()
    assert ranged.fired.is_set() and (ranged.count, second.count) == (1, 1)
    assert [seen.status for seen in proxy.requests("GET", "key")] == [200, 403, 200, 503]


@pytest.mark.parametrize("path", ["/key", "/chunked"])
@pytest.mark.parametrize("kind", ["cut", "long"])
def test_a_body_that_breaks_off(proxy: FaultProxy, client: http.client.HTTPConnection, kind: str, path: str) -> None:
    proxy.inject(Fault("cut", after_bytes=1000) if kind == "cut" else Fault("long"))
    assert fetch_partly(client, path) == (BODY[:1000] if kind == "cut" else BODY)
    client.close()
    assert fetch(client, path) == BODY


def test_a_reset(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.inject(Fault("reset", after_bytes=1000))
    client.request("GET", "/key")
    with pytest.raises(ConnectionResetError), client.getresponse() as answer:
        answer.read()


def test_a_truncated_body_looks_whole(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.inject(Fault("truncate", after_bytes=1000))
    assert fetch(client) == BODY[:1000]
    assert fetch(client) == BODY


def test_a_wrong_etag_and_a_drip_bring_the_whole_body(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.inject(Fault("wrong_etag"))
    client.request("GET", "/key")
    answer = client.getresponse()
    assert answer.read() == BODY and answer.headers["ETag"] == f'"{"0" * 32}"'
    proxy.inject(Fault("drip", after_bytes=len(BODY) - 3, seconds=0.001))
    assert fetch(client) == BODY


@pytest.mark.parametrize("kind", ["stall", "stall_before_headers"])
def test_a_stalled_request_goes_on_when_released(
    proxy: FaultProxy, client: http.client.HTTPConnection, kind: str
) -> None:
    fault = proxy.inject(Fault("stall", after_bytes=10) if kind == "stall" else Fault("stall_before_headers"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fetch, client)
        assert fault.fired.wait(SECONDS)
        assert not waiting.done()
        fault.released.set()
        assert waiting.result(SECONDS) == BODY


def test_a_stalled_request_ends_with_its_client_or_with_the_proxy(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.inject(Fault("stall", after_bytes=10, times=2))
    client.request("GET", "/key")
    client.getresponse().close()
    client.close()
    until(lambda: not proxy._in_flight["*"], "the proxy notices", SECONDS)
    client.request("GET", "/key")
    with client.getresponse() as answer, pytest.raises((http.client.IncompleteRead, ConnectionError)):
        assert answer.read(10) == BODY[:10]
        proxy.close()
        answer.read()


def test_a_server_that_is_down_and_one_whose_answer_is_lost(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.inject(Fault("refuse"))
    with pytest.raises(ConnectionError):
        fetch(client)
    client.close()
    assert proxy.seen == [], "closed before any request was read"
    proxy.inject(Fault("refuse", method="PUT", reaches_server=True))
    client.request("PUT", "/new", b"words")
    with pytest.raises(ConnectionError):
        client.getresponse()
    assert Store.written == [b"words"]
    client.close()
    assert fetch(client) == BODY


def test_requests_in_flight_are_counted_per_method(proxy: FaultProxy) -> None:
    fault = proxy.inject(Fault("stall_before_headers", method="GET", times=3))
    clients = [http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=SECONDS) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(fetch, one) for one in clients]
        until(lambda: fault.count == 3, "three wait", SECONDS)
        proxy.clear()
        assert [one.result(SECONDS) for one in waiting] == [BODY] * 3
    proxy.latency_seconds = 0.001
    fetch(clients[0], method="HEAD")
    for one in clients:
        one.close()
    assert proxy.in_flight_max == {"GET": 3, "HEAD": 1, "*": 3}


def test_signed_requests_pass_to_a_real_server(bucket: Bucket) -> None:
    with FaultProxy(bucket.server.endpoint_url) as proxy:
        client = S3Server(proxy.url).client(retries={"total_max_attempts": 1})
        client.put_object(Bucket=bucket.name, Key="a ü.txt", Body=b"words")
        assert client.get_object(Bucket=bucket.name, Key="a ü.txt")["Body"].read() == b"words"
        assert client.list_objects_v2(Bucket=bucket.name)["KeyCount"] == 1
        proxy.inject(Fault("status", status=403, code="RequestTimeTooSkewed"))
        with pytest.raises(ClientError, match="RequestTimeTooSkewed"):
            client.get_object(Bucket=bucket.name, Key="a ü.txt")
        client.close()

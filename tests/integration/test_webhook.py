"""The webhook, against a real server: signed, verified, bounded in time whatever the server does."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from daemon import config as configuration
from daemon.checks import reporting
from daemon.checks.base import Level, Stopping
from daemon.outbox import Event
from daemon.settings import Notify
from daemon.targets.base import Undelivered
from daemon.targets.webhook import Webhook
from tests.harness import until
from tests.receiver import DRIP, HANG, HANG_UP, Receiver, receiving

EVENT = Event(1, json.dumps({"id": "abc", "kind": "completed", "source": "ä"}, ensure_ascii=False))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def webhook(receiver: Receiver) -> Iterator[Webhook]:
    target = Webhook(f"{receiver.url}/hook?token=x")
    yield target
    target.close()


def why(target: Webhook) -> str:
    with pytest.raises(Undelivered) as caught:
        target.deliver(EVENT)
    return str(caught.value)


def test_the_event_is_posted_as_json(receiver: Receiver, webhook: Webhook) -> None:
    webhook.deliver(EVENT)
    (request,) = receiver.requests
    assert request.path == "/hook?token=x"
    assert request.event == {"id": "abc", "kind": "completed", "source": "ä"}
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["User-Agent"].startswith("convertd/")
    assert "X-Convertd-Signature" not in request.headers


def test_the_signature_covers_the_time_and_the_body(receiver: Receiver, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"first\n")
    webhook = Webhook(receiver.url, str(secret), clock=lambda: 1700000000.9)
    webhook.deliver(EVENT)
    secret.write_bytes(b"second")
    webhook.deliver(EVENT)
    webhook.close()
    for request, key in zip(receiver.requests, (b"first", b"second"), strict=True):
        timestamp = request.headers["X-Convertd-Timestamp"]
        assert timestamp == "1700000000"
        expected = hmac.new(key, timestamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
        assert request.headers["X-Convertd-Signature"] == f"sha256={expected}"


def test_without_its_secret_nothing_is_sent(receiver: Receiver, tmp_path: Path) -> None:
    webhook = Webhook(receiver.url, str(tmp_path / "secret"))
    assert why(webhook) == "secret_file cannot be read: No such file or directory"
    (tmp_path / "secret").write_text(" \n")
    assert why(webhook) == "secret_file is empty"
    (tmp_path / "secret").unlink()
    os.mkfifo(tmp_path / "secret")
    assert why(webhook) == "secret_file is empty", "nobody waits for who might fill it"
    assert receiver.requests == []


def test_a_connection_is_used_again(receiver: Receiver, webhook: Webhook) -> None:
    for _ in range(3):
        webhook.deliver(EVENT)
    assert receiver.connections == 1
    webhook.close()
    webhook.deliver(EVENT)
    assert receiver.connections == 2


def test_a_connection_that_the_server_has_closed_is_made_anew(receiver: Receiver, webhook: Webhook) -> None:
    webhook.deliver(EVENT)
    receiver.stop()
    receiver.start()
    webhook.deliver(EVENT)
    assert len(receiver.accepted) == 2


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_delivered(receiver: Receiver, webhook: Webhook, status: int) -> None:
    receiver.status = status
    webhook.deliver(EVENT)


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503])
def test_any_other_answer_is_none(receiver: Receiver, webhook: Webhook, status: int) -> None:
    receiver.status = status
    assert why(webhook) == f"answered {status}"


def test_no_redirect_is_followed(receiver: Receiver, webhook: Webhook) -> None:
    with receiving() as elsewhere:
        receiver.status = 307
        receiver.headers = {"Location": elsewhere.url}
        assert why(webhook) == "answered 307 (redirects are not followed)"
        assert elsewhere.requests == []


def test_no_proxy_is_asked(receiver: Receiver, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        webhook.deliver(EVENT)
        assert proxy.requests == []
    assert len(receiver.accepted) == 1


@pytest.mark.parametrize("status", [HANG, DRIP])
def test_a_server_that_does_not_answer_is_given_up(receiver: Receiver, status: int) -> None:
    receiver.status = status
    webhook = Webhook(receiver.url, answer_seconds=0.3)
    assert why(webhook) == "did not answer within 0.3 s"


def test_a_server_that_hangs_up(receiver: Receiver, webhook: Webhook) -> None:
    receiver.status = HANG_UP
    assert "without response" in why(webhook)


def test_a_server_that_is_down(receiver: Receiver, webhook: Webhook) -> None:
    receiver.stop()
    assert why(webhook) == "Connection refused"
    receiver.start()
    webhook.deliver(EVENT)


def test_all_addresses_of_a_host_share_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, ExitStack() as stack:
        address = silent.getsockname()
        for _ in range(3):  # of a queue that is full nobody hears anything
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        asked: list[float | None] = []

        class Counted(socket.socket):
            def connect(self, address: Any) -> None:
                asked.append(self.gettimeout())
                super().connect(address)

        six = socket.getaddrinfo(address[0], address[1], type=socket.SOCK_STREAM) * 6
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: six)
        monkeypatch.setattr(socket, "socket", Counted)
        assert why(Webhook("http://six.example/", answer_seconds=0.3)) == "did not answer within 0.3 s"
    assert len(asked) == 1, "the first took all the time there was"


def test_the_next_address_of_a_host_is_tried(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    good = socket.getaddrinfo("127.0.0.1", receiver.port, type=socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        bad = socket.getaddrinfo("127.0.0.1", closed.getsockname()[1], type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: bad + good)
    webhook = Webhook("http://two.example/")
    webhook.deliver(EVENT)
    webhook.close()
    assert len(receiver.accepted) == 1


def test_a_host_that_does_not_exist() -> None:
    assert why(Webhook("http://nowhere.invalid/")) != ""


def test_a_server_that_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"220 mail.example ESMTP" + 50_000 * b"\x1b" + b"\r\n")
                client.recv(1 << 16)

        thread = threading.Thread(target=greet)
        thread.start()
        said = why(Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/"))
        assert "220 mail.example" in said and "\x1b" not in said and len(said) < 1000
        thread.join(30)


def test_an_answer_without_an_end_is_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nand so on")
                done.wait(60)

        thread = threading.Thread(target=answer)
        thread.start()
        webhook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/")
        webhook.deliver(EVENT)
        done.set()
        thread.join(30)


def test_an_abort_ends_a_delivery_and_refuses_the_next(receiver: Receiver) -> None:
    receiver.status = HANG
    webhook = Webhook(receiver.url, answer_seconds=60)
    failed: list[str] = []
    thread = threading.Thread(target=lambda: failed.append(why(webhook)))
    thread.start()
    until(lambda: receiver.requests, "the request is there")
    webhook.abort()
    thread.join(30)
    assert failed
    assert why(webhook) == "stopped"


def test_the_address_holds_no_secret() -> None:
    assert Webhook("https://hooks.example:8443/services/T0/B0/secret?token=x").address == "https://hooks.example:8443"


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a key and its certificate for 127.0.0.1, signed by itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "receiver.pem"
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return str(path)


@pytest.fixture
def tls_receiver(certificate: str) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with receiving(tls=context) as server:
        yield server


def test_an_unknown_certificate_is_refused(tls_receiver: Receiver) -> None:
    assert "certificate verify failed" in why(Webhook(tls_receiver.url))
    assert tls_receiver.requests == []


def test_a_certificate_for_another_host_is_refused(tls_receiver: Receiver, certificate: str) -> None:
    webhook = Webhook(f"https://localhost:{tls_receiver.port}/", tls=ssl.create_default_context(cafile=certificate))
    assert "certificate verify failed" in why(webhook)


def test_a_known_certificate_is_trusted(tls_receiver: Receiver, certificate: str) -> None:
    webhook = Webhook(tls_receiver.url, tls=ssl.create_default_context(cafile=certificate))
    webhook.deliver(EVENT)
    webhook.deliver(EVENT)
    webhook.close()
    assert len(tls_receiver.accepted) == 2
    assert tls_receiver.connections == 1


def test_trusted_certificates_may_be_replaced_while_it_runs(
    tls_receiver: Receiver, certificate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    webhook = Webhook(tls_receiver.url)
    assert "certificate verify failed" in why(webhook)
    trusted.write_bytes(Path(certificate).read_bytes())
    webhook.deliver(EVENT)
    webhook.close()
    assert len(tls_receiver.accepted) == 1


def test_doctor_looks_at_the_certificate_and_sends_nothing(
    tls_receiver: Receiver, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration.defaults()._replace(notify=Notify(webhook=f"{tls_receiver.url}/token"))
    check = reporting.group(config, daemon_runs=False).check
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    (found,) = check(Stopping())
    assert found.level is Level.PROBLEM and "is refused: self" in found.what and "SSL_CERT_FILE" in found.remedy
    assert "token" not in found.what
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    (found,) = check(Stopping())
    assert found.level is Level.OK
    assert tls_receiver.requests == []


@pytest.mark.parametrize("status", [HANG, DRIP])
def test_tls_is_bounded_in_time_too(tls_receiver: Receiver, certificate: str, status: int) -> None:
    tls_receiver.status = status
    webhook = Webhook(tls_receiver.url, answer_seconds=1.0, tls=ssl.create_default_context(cafile=certificate))
    assert why(webhook) == "did not answer within 1 s"


def test_a_server_that_never_shakes_hands_is_given_up(certificate: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        webhook = Webhook(url, answer_seconds=0.3, tls=ssl.create_default_context(cafile=certificate))
        assert why(webhook) == "did not answer within 0.3 s"


def test_an_abort_ends_a_delivery_over_tls(tls_receiver: Receiver, certificate: str) -> None:
    tls_receiver.status = HANG
    webhook = Webhook(tls_receiver.url, answer_seconds=60, tls=ssl.create_default_context(cafile=certificate))
    failed: list[str] = []
    thread = threading.Thread(target=lambda: failed.append(why(webhook)))
    thread.start()
    until(lambda: tls_receiver.requests, "the request is there")
    webhook.abort()
    thread.join(30)
    assert failed

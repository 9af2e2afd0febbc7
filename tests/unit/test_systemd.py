"""What is sent to the service manager, and where."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from daemon.systemd import LONGEST_STATUS, Notifier, watchdog_seconds


def listening(address: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.settimeout(10)
    channel.bind(address)
    return channel


def test_a_message_has_a_line_a_value(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as manager:
        Notifier({"NOTIFY_SOCKET": path}).send(READY=1, STATUS="3 watches")
        assert manager.recv(4096) == b"READY=1\nSTATUS=3 watches"


def test_an_abstract_socket_is_found() -> None:
    name = f"convertd-test-{uuid.uuid4()}"
    with listening(f"\0{name}") as manager:
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).send(WATCHDOG=1)
        assert manager.recv(4096) == b"WATCHDOG=1"


def test_a_status_cannot_forge_a_line_and_fits_into_a_message(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as manager:
        Notifier({"NOTIFY_SOCKET": path}).send(STATUS="inbox paused: \nSTOPPING=1 \udcff" + "x" * 10_000)
        message = manager.recv(1 << 16)
    assert message.count(b"\n") == 0
    assert message.decode().startswith("STATUS=inbox paused:  STOPPING=1 ")
    assert len(message) <= LONGEST_STATUS + len("STATUS=")


@pytest.mark.parametrize("name", [None, "", "relative", "vsock:2:1234", "/nonexistent/socket"])
def test_without_a_manager_nothing_happens(name: str | None) -> None:
    notifier = Notifier({} if name is None else {"NOTIFY_SOCKET": name})
    notifier.send(READY=1)
    assert notifier.present == (name == "/nonexistent/socket")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_one_process(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environ) == seconds

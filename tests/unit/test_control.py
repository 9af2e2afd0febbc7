"""The control socket: answers, refusals, and clients that misbehave."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import control
from daemon.control import CLIENTS, ControlServer, ask
from daemon.errors import AlreadyRunning, NotRunning, Unanswered, UsageError


def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"got": request}


def refuse(request: dict[str, Any]) -> dict[str, Any]:
    raise AlreadyRunning("no way", "do this")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    yield from serving(str(tmp_path / "control.sock"))


def serving(path: str) -> Iterator[str]:
    server = ControlServer(path, {"echo": echo, "refuse": refuse})
    server.start()
    thread = threading.Thread(target=server.run)
    thread.start()
    yield path
    server.close()
    thread.join(10)
    assert not thread.is_alive()
    assert not os.path.exists(path)


def test_a_question_is_answered(path: str) -> None:
    assert ask(path, "echo", failed=True) == {"got": {"failed": True}}


def test_a_refusal_keeps_message_hint_and_exit_code(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(path, "refuse")
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == ("no way", "do this", 4)


def test_an_unknown_command_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="does not know"):
        ask(path, "dance")


def test_no_daemon_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        ask(str(tmp_path / "control.sock"), "echo")


def test_the_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("left by a dead daemon")
    for served in serving(str(path)):
        assert path.stat().st_mode & 0o777 == 0o600
        assert ask(served, "echo") == {"got": {}}


def test_a_deep_state_dir_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    for served in serving(str(deep / "control.sock")):
        assert ask(served, "echo") == {"got": {}}


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"garbage\n", b'{"command": ["echo"]}\n', b"\xff\xfe\n"])
def test_garbage_is_refused_and_the_server_lives(path: str, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(line)
        assert b"does not know" in client.recv(4096)
    assert ask(path, "echo") == {"got": {}}


def test_silent_clients_cannot_keep_others_out(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CLIENT_TIMEOUT_SECONDS", 0.2)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(CLIENTS)]
    for client in silent:
        client.connect(path)
    answered = threading.Event()

    def persist() -> None:
        while not answered.is_set():
            try:
                ask(path, "echo")
                answered.set()
            except (NotRunning, Unanswered):
                pass

    thread = threading.Thread(target=persist, daemon=True)
    try:
        thread.start()
        assert answered.wait(30)
    finally:
        for client in silent:
            client.close()


def test_an_endless_request_is_cut_off(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_BYTES", 1000)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        with pytest.raises(ConnectionError):
            for _ in range(10_000):
                client.sendall(b"x" * 4096)
    assert ask(path, "echo") == {"got": {}}

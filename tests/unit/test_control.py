"""The control socket: answers, refusals, and clients that misbehave."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from daemon import control
from daemon.control import CLIENTS, DESCRIPTORS, ControlServer, ask
from daemon.errors import AlreadyRunning, NotRunning, Unanswered, UsageError
from tests.harness import until


def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"got": request}


def refuse(request: dict[str, Any]) -> dict[str, Any]:
    raise AlreadyRunning("no way", "do this")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    yield from serving(str(tmp_path / "control.sock"))


def serving(path: str) -> Iterator[str]:
    server = ControlServer(path, {"echo": echo, "refuse": refuse}, {"sizes": sizes, "fail": fail})
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


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"garbage\n", b'{"command": ["echo"]}\n', b"\xff\xfe\n", b"[" * 60_000 + b"\n"]
)
def test_garbage_is_refused_and_the_server_lives(path: str, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(line)
        assert b"does not know" in client.recv(4096)
    assert ask(path, "echo") == {"got": {}}


# -- descriptors -------------------------------------------------------------------------------------------------------


def sizes(request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
    return {"got": request, "sizes": [os.fstat(fd).st_size for fd in descriptors]}


def fail(request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
    raise AlreadyRunning("no way", "do this")


@contextmanager
def files(tmp_path: Path, number: int) -> Iterator[list[int]]:
    paths = [tmp_path / f"file{index}" for index in range(number)]
    for index, path in enumerate(paths):
        path.write_bytes(b"x" * index)
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def open_files(folder: Path) -> list[str]:
    """Which files below a folder this process, so the server too, has open."""
    links = []
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{entry}"))
    return [link for link in links if link.startswith(f"{folder}/file")]


def none_left(tmp_path: Path) -> None:
    until(lambda: not open_files(tmp_path), "the server has closed what it got", 10)


@pytest.mark.parametrize("number", [0, 1, DESCRIPTORS])
def test_open_files_come_with_a_question(path: str, tmp_path: Path, number: int) -> None:
    with files(tmp_path, number) as fds:
        answer = ask(path, "sizes", descriptors=fds, names=["x" * 50_000])
    assert answer["sizes"] == list(range(number))
    assert len(answer["got"]["names"][0]) == 50_000
    none_left(tmp_path)


def test_an_answer_that_comes_at_once_is_an_answer(path: str, tmp_path: Path) -> None:
    with files(tmp_path, 3) as fds:
        for _ in range(200):
            assert ask(path, "sizes", descriptors=fds)["sizes"] == [0, 1, 2]


@pytest.mark.parametrize("command", ["fail", "echo", "dance"])
def test_files_of_a_refused_question_are_closed(path: str, tmp_path: Path, command: str) -> None:
    with files(tmp_path, 3) as fds, pytest.raises(UsageError):
        ask(path, command, descriptors=fds)
    none_left(tmp_path)


def test_files_without_a_whole_question_are_closed(path: str, tmp_path: Path) -> None:
    with files(tmp_path, 2) as fds, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        socket.send_fds(client, [b'{"command": "siz'], fds)
    none_left(tmp_path)
    assert ask(path, "echo") == {"got": {}}


def test_more_files_than_allowed_are_closed_at_once_or_in_pieces(path: str, tmp_path: Path) -> None:
    with files(tmp_path, DESCRIPTORS + 1) as fds, pytest.raises(Unanswered):
        ask(path, "sizes", descriptors=fds)
    with files(tmp_path, DESCRIPTORS) as fds, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        with suppress(ConnectionError):
            for piece in (b'{"command"', b': "sizes"}', b"\n"):
                socket.send_fds(client, [piece], fds)
            assert client.recv(4096) == b""
    none_left(tmp_path)
    assert ask(path, "echo") == {"got": {}}


def test_a_client_that_trickles_is_dropped(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CLIENT_TIMEOUT_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)

        def trickle() -> bool:
            try:
                client.sendall(b" ")
            except ConnectionError:
                return True
            return False

        until(trickle, "the server hangs up on a client that never comes to its end", 30)


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


def test_commands_that_come_in_a_burst_are_all_answered(path: str) -> None:
    together = threading.Barrier(4 * CLIENTS)
    answers: list[dict[str, Any]] = []

    def one() -> None:
        together.wait(30)
        answers.append(ask(path, "echo"))

    threads = [threading.Thread(target=one) for _ in range(4 * CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == len(threads)


def test_a_process_without_free_descriptors_goes_on_once_it_has_some(path: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        second.settimeout(0.3)
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            first.connect(path)  # the server that waits has a descriptor for this one already
            second.connect(path)
            second.sendall(b'{"command": "echo"}\n')
            with pytest.raises(TimeoutError):
                second.recv(4096)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        second.settimeout(30)
        assert b"got" in second.recv(4096)


def test_an_endless_request_is_cut_off(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_BYTES", 1000)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        with pytest.raises(ConnectionError):
            for _ in range(10_000):
                client.sendall(b"x" * 4096)
    assert ask(path, "echo") == {"got": {}}


@pytest.mark.parametrize(
    ("name", "text"),
    [(b"a", "a"), ("ü".encode(), "ü"), (b"\xff\n", "\udcff\n"), (b"\xed\xb3\xbf", "\udced\udcb3\udcbf")],
)
def test_any_bytes_are_the_name_of_a_file(name: bytes, text: str) -> None:
    assert control.name_to_wire(name) == text
    assert control.name_from_wire(text) == name

"""The protocol between daemon and converter child, over a real socketpair."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import msgspec
import pytest

from daemon.converters import talk, wire
from daemon.converters.base import Options
from daemon.errors import Kind
from tests.harness import until

SHA256 = "0" * 64


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = wire.pair()
    with ours, theirs:
        yield ours, theirs


def daemons(ends: tuple[socket.socket, socket.socket]) -> wire.Channel:
    return wire.Channel(ends[0], reads_ahead=True, send_seconds=wire.SEND_SECONDS)


def soon() -> float:
    return time.monotonic() + 20


def result(**changed: object) -> wire.Result:
    values = {
        "token": 7,
        "size_bytes": 0,
        "sha256": SHA256,
        "media_type": "text/plain",
        "engine": "text",
        "engine_version": "1",
        "pages": None,
        "title": None,
        "characters": 0,
        "warnings": ("one",),
    } | changed
    return wire.Result(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        wire.Ready(landlock_abi=7, seccomp=True),
        wire.Progress(token=7, engine="liteparse"),
        wire.Failure(token=7, kind=Kind.ENCRYPTED, message="locked"),
        result(title="Grüße", pages=3),
    ],
)
def test_what_the_child_says_arrives_as_it_was(
    ends: tuple[socket.socket, socket.socket], message: msgspec.Struct
) -> None:
    wire.Channel(ends[1]).send(message)
    assert daemons(ends).receive(wire.TO_PARENT, soon()) == message


def test_settings_arrive_with_their_options(ends: tuple[socket.socket, socket.socket]) -> None:
    settings = wire.Settings(Options("always", ("deu",), "/data", {"pdf": ("xberg", "a.b:C")}), 1 << 30, 1 << 20, 42)
    daemons(ends).send(settings)
    assert wire.Channel(ends[1]).receive(wire.TO_CHILD) == settings


def test_a_task_brings_its_document_and_a_name_that_is_not_utf8(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    document = os.memfd_create("document")
    daemons(ends).send(wire.Task(token=7, name=b"\xff.pdf"), descriptor=document)
    task, received = wire.Channel(ends[1]).receive_with_descriptor(wire.TO_CHILD)
    assert isinstance(task, wire.Task) and received is not None
    assert os.fsencode(wire.file_name(task.name)) == b"\xff.pdf"
    assert os.path.sameopenfile(document, received)
    os.close(document)
    os.close(received)


@pytest.mark.parametrize("size_bytes", [0, 1, wire.SHORT_BYTES - 100, wire.SHORT_BYTES, wire.SHORT_BYTES + 1, 8 << 20])
def test_a_body_arrives_whole_between_its_messages(ends: tuple[socket.socket, socket.socket], size_bytes: int) -> None:
    body = os.urandom(size_bytes)
    channel, end = wire.Channel(ends[1]), wire.End(7)
    said = (result(size_bytes=size_bytes), body, end)

    def speak() -> None:
        channel.send(wire.Progress(7, "x"))
        channel.send_around(*said)

    sender = threading.Thread(target=speak)
    sender.start()
    heard = daemons(ends)
    assert heard.receive(wire.TO_PARENT, soon()) == wire.Progress(7, "x")
    assert heard.receive(wire.TO_PARENT, soon()) == said[0]
    assert heard.receive_bytes(size_bytes, soon()) == body
    assert heard.receive(wire.TO_PARENT, soon()) == end
    assert not heard.surplus
    sender.join()


def test_a_result_waits_for_a_daemon_that_is_stopped(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SEND_SECONDS", 0.05)
    body, end = os.urandom(4 << 20), wire.End(7)
    channel, heard = wire.Channel(ends[1]), daemons(ends)
    said = result(size_bytes=len(body))
    sender = threading.Thread(target=channel.send_around, args=(said, body, end))
    sender.start()
    until(lambda: not select.select([], [ends[1]], [], 0)[1], "the sender is held up")
    sender.join(20 * wire.SEND_SECONDS)
    assert sender.is_alive(), "it gave up"
    assert heard.receive(wire.TO_PARENT, soon()) == said
    assert heard.receive_bytes(len(body), soon()) == body
    assert heard.receive(wire.TO_PARENT, soon()) == end
    sender.join()


def test_the_daemon_does_not_wait_long_for_a_child_that_takes_nothing(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SEND_SECONDS", 0.05)
    with pytest.raises(BlockingIOError):
        daemons(ends).send(wire.Task(token=1, name=b"x" * (wire.FRAME_LIMIT_BYTES - 100)))


def test_what_comes_along_with_a_message_is_seen(ends: tuple[socket.socket, socket.socket]) -> None:
    said = wire.Progress(7, "x")
    ends[1].sendall(framed(msgspec.msgpack.encode(said)) * 2)
    heard = daemons(ends)
    assert heard.receive(wire.TO_PARENT, soon()) == said
    assert heard.surplus
    assert heard.receive(wire.TO_PARENT, soon()) == said
    assert not heard.surplus


def framed(content: bytes) -> bytes:
    return wire.LENGTH.pack(len(content)) + content


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        wire.LENGTH.pack(wire.FRAME_LIMIT_BYTES + 1),
        framed(b"\xc1"),
        framed(b"not a message"),
        framed(msgspec.msgpack.encode({"type": "Unheard"})),
        framed(msgspec.msgpack.encode({"type": "Progress", "token": -1, "engine": "x"})),
        framed(msgspec.msgpack.encode({"type": "Progress", "token": 1, "engine": "x" * (wire.TEXT_LIMIT + 1)})),
        framed(msgspec.msgpack.encode({"type": "Failure", "token": 1, "kind": "bored", "message": ""})),
        framed(msgspec.msgpack.encode(result(sha256="nonsense"))),
        framed(msgspec.msgpack.encode(result(pages=1 << 60))),
        framed(msgspec.msgpack.encode(result(pages=10_000_000))),
        framed(msgspec.msgpack.encode({"type": "Progress", "token": 1, "engine": "x", "junk": [0]})),
        framed(msgspec.msgpack.encode(result(size_bytes=-1))),
        framed(b"\x91" * 100_000),
    ],
)
def test_garbage_is_refused(ends: tuple[socket.socket, socket.socket], garbage: bytes) -> None:
    ends[1].sendall(garbage)
    with pytest.raises(wire.ProtocolError):
        daemons(ends).receive(wire.TO_PARENT, soon())


@pytest.mark.parametrize("said", [b"", b"\0\0", framed(b"whole")[:-2]])
def test_a_hang_up_is_told_from_silence(ends: tuple[socket.socket, socket.socket], said: bytes) -> None:
    ends[1].sendall(said)
    with pytest.raises(TimeoutError):
        daemons(ends).receive(wire.TO_PARENT, time.monotonic() + 0.05)
    ends[1].sendall(said)
    ends[1].close()
    with pytest.raises((EOFError, wire.ProtocolError)):
        while True:
            daemons(ends).receive(wire.TO_PARENT, soon())


def test_a_body_in_a_few_pieces_arrives_whole_but_not_one_in_many(ends: tuple[socket.socket, socket.socket]) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    channel = daemons(ends)
    for pieces in (10, 200):
        for _ in range(pieces):
            socket.send_fds(ends[1], [b"x"], [null])  # reading ends where a descriptor comes along
        if pieces == 10:
            assert channel.receive_bytes(10, soon()) == b"x" * 10
    with pytest.raises(wire.ProtocolError):
        channel.receive_bytes(200, soon())
    os.close(null)


def test_an_answer_of_another_token_does_not_count_as_a_beginning(ends: tuple[socket.socket, socket.socket]) -> None:
    wire.Channel(ends[1]).send(wire.Progress(token=8, engine="x"))
    talking = talk.Talk(daemons(ends), 7, soon())
    with pytest.raises(wire.ProtocolError):
        talking.outcome(1)
    assert not talking.begun, "the document would be blamed for what was said before it"


@pytest.mark.parametrize("said", [b"\0", b"\0\0\0\x09", b"\0\0\0\x09half"])
def test_a_first_word_of_which_there_is_a_half_is_not_waited_for(
    ends: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    ends[1].sendall(said)
    talking = talk.Talk(daemons(ends), 7, soon())
    with pytest.raises(wire.ProtocolError):
        talking.outcome(1)
    assert not talking.begun


def test_a_child_that_is_gone_says_no_first_word(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].close()
    with pytest.raises(EOFError):
        talk.Talk(daemons(ends), 7, soon()).outcome(1)


def test_a_shorter_deadline_is_kept_after_a_longer_one(ends: tuple[socket.socket, socket.socket]) -> None:
    channel = daemons(ends)
    wire.Channel(ends[1]).send(wire.Ready(landlock_abi=1, seccomp=True))
    channel.receive(wire.TO_PARENT, time.monotonic() + 3600)
    with pytest.raises(TimeoutError):
        channel.receive(wire.TO_PARENT, time.monotonic() + 0.05)
    wire.Channel(ends[1]).send(wire.Ready(landlock_abi=1, seccomp=True))
    assert channel.receive(wire.TO_PARENT, soon())


def test_a_deadline_that_is_just_now_is_over(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends[1].close()  # else this would wait for ever
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: 100.0))
    with pytest.raises(TimeoutError):
        daemons(ends).receive(wire.TO_PARENT, 100.0)


def test_of_two_descriptors_that_come_along_none_is_left_open(ends: tuple[socket.socket, socket.socket]) -> None:
    task = wire.Task(token=1, name=b"x")
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(ends[0], [framed(msgspec.msgpack.encode(task))], [0, 1])
    received, descriptor = wire.Channel(ends[1]).receive_with_descriptor(wire.TO_CHILD)
    assert received == task and descriptor is not None
    os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before


def test_tasks_that_wait_for_each_other_keep_their_documents(ends: tuple[socket.socket, socket.socket]) -> None:
    channel, child = daemons(ends), wire.Channel(ends[1])
    documents = [os.memfd_create(str(number)) for number in range(3)]
    for number, one in enumerate(documents):
        channel.send(wire.Task(token=number, name=b"x" * 10 ** (2 * number + 1)), descriptor=one)
    for number, one in enumerate(documents):
        task, received = child.receive_with_descriptor(wire.TO_CHILD)
        assert isinstance(task, wire.Task) and received is not None
        assert (task.token, os.path.sameopenfile(one, received)) == (number, True)
        os.close(one)
        os.close(received)


@pytest.mark.parametrize("engine", ["x", "x" * wire.TEXT_LIMIT])
def test_endless_talk_is_ended(ends: tuple[socket.socket, socket.socket], engine: str) -> None:
    said = []

    def chatter() -> None:
        with suppress(OSError):
            while True:
                wire.Channel(ends[1]).send(wire.Progress(token=7, engine=engine))
                said.append(len(engine))

    talking = threading.Thread(target=chatter)
    talking.start()
    with pytest.raises(wire.ProtocolError):
        talk.Talk(daemons(ends), 7, soon()).outcome(1)
    ends[0].shutdown(socket.SHUT_RDWR)
    talking.join()
    assert len(said) < 30_000 and sum(said) < 10 << 20


def test_a_deadline_in_the_past_times_out_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    wire.Channel(ends[1]).send(wire.Ready(landlock_abi=0, seccomp=False))
    with pytest.raises(TimeoutError):
        daemons(ends).receive(wire.TO_PARENT, time.monotonic() - 1)


def test_text_of_libraries_is_made_fit_to_send(ends: tuple[socket.socket, socket.socket]) -> None:
    warnings = wire.clean_warnings(["\ud800" + "ü" * 10_000] * 10_000)
    message = result(title=wire.clean("bad \udcff"), warnings=warnings)
    sender = threading.Thread(target=wire.Channel(ends[1]).send, args=(message,))
    sender.start()
    assert daemons(ends).receive(wire.TO_PARENT, soon()) == message
    sender.join()


def test_that_there_are_more_warnings_than_can_be_sent_is_told() -> None:
    assert wire.clean_warnings(["one"] * wire.WARNINGS_LIMIT) == ("one",) * wire.WARNINGS_LIMIT
    sent = wire.clean_warnings(["one"] * 1500)
    assert len(sent) == wire.WARNINGS_LIMIT and sent.count("one") == 499
    assert sent[-1] == "There are 1,001 warnings more."


def test_a_message_too_long_for_a_frame_is_not_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(wire.ProtocolError):
        daemons(ends).send(wire.Task(token=1, name=b"x" * wire.FRAME_LIMIT_BYTES))
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        ends[1].recv(1)

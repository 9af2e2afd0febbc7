"""The control socket: how commands speak to a running daemon. One JSON line asks, one JSON line answers.

The socket lies in state_dir with mode 0600, and the peer's credentials are checked besides. A client that is slow or
hostile is dropped after `CLIENT_TIMEOUT_SECONDS`; at most `CLIENTS` are served at once. Open files may come with a
question, at most `DESCRIPTORS`; the daemon closes its own once the question is answered, refused or given up.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from daemon.errors import ConvertdError, NotRunning, Unanswered, UsageError

CLIENT_TIMEOUT_SECONDS = 5.0
CLIENTS = 16
QUEUE = 128
SLOT_SECONDS = 0.1
"""So long a client waits for one of those that are served to leave: commands come in bursts, and are done quickly."""
AGAIN_SECONDS = 0.1
CONNECT_SECONDS = 5.0
REQUEST_BYTES = 1 << 20
DESCRIPTORS = 16
ANSWER_TIMEOUT_SECONDS = 60.0

Handler = Callable[[dict[str, Any]], dict[str, Any]]
FilesHandler = Callable[[dict[str, Any], Sequence[int]], dict[str, Any]]
"""Takes descriptors as well, which are closed when it returns."""


class ControlServer:
    """Answers requests in threads of its own. `start` raises UsageError where the socket cannot be made."""

    def __init__(
        self, path: str, handlers: Mapping[str, Handler], takers: Mapping[str, FilesHandler] | None = None
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._takers = takers or {}
        self._slots = threading.BoundedSemaphore(CLIENTS)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._stopped = False

    def start(self) -> None:
        """Listen. Call with the state_dir's lock held: a socket file left by a dead daemon is replaced."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        try:
            with _short(self._path) as path:
                self._socket.bind(path)
            os.chmod(self._path, 0o600)
            self._socket.listen(QUEUE)
        except OSError as error:
            raise UsageError(f"the control socket {self._path} cannot be made: {error}", "") from error

    def run(self) -> None:
        """Accept until closed."""
        while not self._stopped:
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._stopped:
                    return
                time.sleep(AGAIN_SECONDS)  # too many files are open, or the client is gone: no reason to end
                continue
            client.settimeout(CLIENT_TIMEOUT_SECONDS)
            if not self._slots.acquire(timeout=SLOT_SECONDS):
                client.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(client,), name="control-client", daemon=True).start()
            except RuntimeError:  # no more threads may be started just now
                self._slots.release()
                client.close()

    def close(self) -> None:
        """Stop listening and remove the socket. Idempotent."""
        self._stopped = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _serve(self, client: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            with client:
                if _peer_uid(client) not in (0, os.geteuid()):
                    return
                answer = self._answer(_read_request(client, descriptors), descriptors)
                client.settimeout(CLIENT_TIMEOUT_SECONDS)
                client.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass  # the client's trouble, not ours
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            self._slots.release()

    def _answer(self, line: bytes, descriptors: Sequence[int]) -> dict[str, Any]:
        try:
            request = json.loads(line)
            answer = self._handler(request.pop("command"), descriptors)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return _refusal("this daemon does not know that command", "It may be of another version: restart it.", 2)
        try:
            return {"ok": answer(request)}
        except ConvertdError as error:
            return _refusal(error.message, error.hint, error.exit_code)
        except Exception as error:
            return _refusal(f"the daemon could not do that: {error!r}", "Check the arguments, and report this.", 1)

    def _handler(self, command: str, descriptors: Sequence[int]) -> Handler:
        """What carries the command out. Raises KeyError for one that is not known, or that takes no files."""
        taker = self._takers.get(command)
        if taker is not None:
            return lambda request: taker(request, descriptors)
        if descriptors:
            raise KeyError(command)
        return self._handlers[command]


def ask(
    path: str,
    command: str,
    *,
    timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
    descriptors: Sequence[int] = (),
    **values: Any,
) -> dict[str, Any]:
    """Ask the running daemon, which also gets these open files, at most `DESCRIPTORS`.

    Raises NotRunning, Unanswered, or what the daemon refused as a UsageError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
        client.settimeout(timeout_seconds)
        try:
            _connect(client, path)
        except BlockingIOError as error:
            raise Unanswered("the daemon does not answer", "It may be stopping or very busy: try again.") from error
        except OSError as error:
            raise NotRunning("the daemon is not running", "Start it: convertd run") from error
        try:
            _send_request(client, json.dumps({"command": command, **values}).encode() + b"\n", descriptors)
            answer = json.loads(_read_answer(client))
        except (OSError, ValueError) as error:
            raise Unanswered("the daemon does not answer", "It may be stopping or very busy: try again.") from error
    if "ok" in answer:
        result: dict[str, Any] = answer["ok"]
        return result
    refused = UsageError(answer["error"], answer["hint"])
    refused.exit_code = answer["exit_code"]
    raise refused


def name_to_wire(name: bytes) -> str:
    """The name of a file as questions carry it: decoded as UTF-8, whatever the locale. Any bytes are a name."""
    return name.decode("utf-8", "surrogateescape")


def name_from_wire(text: str) -> bytes:
    """The name of a file that a question carries. Raises UnicodeEncodeError where the text is not one."""
    return text.encode("utf-8", "surrogateescape")


def _connect(client: socket.socket, path: str) -> None:
    """Raises BlockingIOError where too many others wait to be served, and OSError where nobody is there."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            with _short(path) as short:
                client.connect(short)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(AGAIN_SECONDS)


def _refusal(message: str, hint: str, exit_code: int) -> dict[str, Any]:
    return {"error": message, "hint": hint, "exit_code": exit_code}


def _peer_uid(client: socket.socket) -> int:
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _send_request(client: socket.socket, line: bytes, descriptors: Sequence[int]) -> None:
    sent = socket.send_fds(client, [line], list(descriptors)) if descriptors else 0
    if sent < len(line):  # sending nothing is an error where the answer is there already and the server gone
        client.sendall(line[sent:])


def _read_request(client: socket.socket, descriptors: list[int]) -> bytes:
    """The line that asks. `descriptors` gets those that came with it, also where the line does not come to its end."""
    deadline = time.monotonic() + CLIENT_TIMEOUT_SECONDS
    received = bytearray()
    while not received.endswith(b"\n"):
        client.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = _receive(client, descriptors)
        if not chunk or len(received) + len(chunk) > REQUEST_BYTES or time.monotonic() > deadline:
            raise ConnectionError("incomplete message")
        received += chunk
    return bytes(received)


def _receive(client: socket.socket, descriptors: list[int]) -> bytes:
    room = socket.CMSG_SPACE(DESCRIPTORS * struct.calcsize("i"))
    chunk, ancillary, flags, _ = client.recvmsg(1 << 16, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            descriptors += numbers
    if flags & socket.MSG_CTRUNC or len(descriptors) > DESCRIPTORS:
        raise ConnectionError("too many descriptors")  # those beyond the room were closed by the kernel
    return chunk


def _read_answer(server: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = server.recv(1 << 16)
        if not chunk:
            raise ConnectionError("incomplete message")
        received += chunk
    return bytes(received)


class _short:
    """A path for a Unix socket in however deep a folder: addresses are limited to 107 bytes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder: int | None = None

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) < 100:
            return self._path
        folder, name = os.path.split(self._path)
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{name}"

    def __exit__(self, *exc: object) -> None:
        if self._folder is not None:
            os.close(self._folder)

"""A disk with a write cache that a power cut empties: a server of the NBD protocol, as little of it as qemu needs.

A write is done for whoever reads, and is safe after the next FLUSH or if it was made with FUA. At a cut each write
that is not safe is kept, lost or torn at a sector by chance, as in the cache of a disk that writes in any order.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from pathlib import Path
from typing import NamedTuple

SECTOR_BYTES = 512
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_FUA = 1
_HAS_FLAGS, _SEND_FLUSH, _SEND_FUA = 1, 4, 8
_INFO, _GO, _ABORT = 6, 7, 2
_ACK, _EXPORT, _UNSUPPORTED = 1, 3, (1 << 31) + 1
_INVALID = 22


class Write(NamedTuple):
    offset: int
    content: bytes


class Cut(NamedTuple):
    """What became of the writes that were not safe."""

    kept: int
    torn: int
    lost: int


class VolatileDisk:
    """One disk, served to one reader and writer at a time on a Unix socket. It keeps its content across cuts."""

    def __init__(self, content: bytes, socket_path: Path) -> None:
        self.path = socket_path
        self.failed = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._writes_left = -1
        self._seen = bytearray(content)
        self._safe = bytearray(content)
        self._unsafe: list[Write] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(socket_path))
        self._listener.listen(1)
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> VolatileDisk:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._hang_up()
        self._thread.join(30)
        self._listener.close()

    def fail_at(self, writes: int) -> None:
        """The power is to fail right after so many more writes: whatever comes then is never answered."""
        with self._lock:
            self._writes_left = writes

    def cut(self, chance: random.Random) -> Cut:
        """The power fails: nobody is served any more, and what is not safe is up to chance."""
        self.failed.set()
        self._hang_up()
        assert self._idle.wait(30), "the reader and writer does not go"
        kept = torn = 0
        with self._lock:
            self._writes_left = -1
            for write in self._unsafe:
                sectors = len(write.content) // SECTOR_BYTES
                left = chance.choice((0, 0, 0, sectors, sectors, chance.randint(0, sectors)))
                kept += left == sectors
                torn += 0 < left < sectors
                end = left * SECTOR_BYTES
                self._safe[write.offset : write.offset + end] = write.content[:end]
            lost = len(self._unsafe) - kept - torn
            self._unsafe.clear()
            self._seen[:] = self._safe
        self.failed.clear()
        return Cut(kept, torn, lost)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self._connection.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def _serve(self) -> None:
        while True:
            try:
                self._connection, _ = self._listener.accept()
            except OSError:
                return
            self._idle.clear()
            with self._connection, contextlib.suppress(OSError):
                if self._agree(self._connection):
                    while self._answer(self._connection):
                        pass
            self._idle.set()

    def _agree(self, peer: socket.socket) -> bool:
        peer.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 1 | 2))
        _receive(peer, 4)
        while True:
            _, option, length = struct.unpack(">8sII", _receive(peer, 16))
            _receive(peer, length)
            if option in (_INFO, _GO):
                flags = _HAS_FLAGS | _SEND_FLUSH | _SEND_FUA
                _reply(peer, option, _EXPORT, struct.pack(">HQH", 0, len(self._seen), flags))
            _reply(peer, option, _ACK if option in (_INFO, _GO, _ABORT) else _UNSUPPORTED)
            if option in (_GO, _ABORT):
                return bool(option == _GO)

    def _answer(self, peer: socket.socket) -> bool:
        _, flags, command, cookie, offset, length = struct.unpack(">IHHQQI", _receive(peer, 28))
        error, content = 0, b""
        if command == _DISCONNECT:
            return False
        if self.failed.is_set():
            _receive(peer, 1 << 40)  # until the cut, and without an answer
        if command == _READ:
            content = bytes(self._seen[offset : offset + length])
        elif command == _WRITE:
            self._write(Write(offset, _receive(peer, length)), safe=bool(flags & _FUA))
        elif command == _FLUSH:
            self._flush()
        else:
            error = _INVALID
        if self.failed.is_set():
            _receive(peer, 1 << 40)
        peer.sendall(struct.pack(">IIQ", 0x67446698, error, cookie) + content)
        return True

    def _write(self, write: Write, *, safe: bool) -> None:
        with self._lock:
            place = slice(write.offset, write.offset + len(write.content))
            self._seen[place] = write.content
            if safe:
                self._safe[place] = write.content
            else:
                self._unsafe.append(write)
            self._writes_left -= 1
            if self._writes_left == 0:
                self.failed.set()

    def _flush(self) -> None:
        with self._lock:
            for write in self._unsafe:
                self._safe[write.offset : write.offset + len(write.content)] = write.content
            self._unsafe.clear()


def _reply(peer: socket.socket, option: int, kind: int, content: bytes = b"") -> None:
    peer.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(content)) + content)


def _receive(peer: socket.socket, length: int) -> bytes:
    content = bytearray()
    while len(content) < length:
        if not (part := peer.recv(min(length - len(content), 1 << 20))):
            raise ConnectionError("the reader has gone")
        content += part
    return bytes(content)

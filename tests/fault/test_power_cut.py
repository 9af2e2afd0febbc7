"""The power of a machine is cut while convertd works: what it said is safe is there when it boots again.

Takes minutes, and with an emulated processor many of them: only where CONVERTD_TEST_POWER_CUT names a number of cuts.
"""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import guest
from tests.fault import power_cut
from tests.volatile_disk import SECTOR_BYTES, VolatileDisk

CUTS = os.environ.get("CONVERTD_TEST_POWER_CUT", "")
READ, WRITE, FLUSH, FUA = 0, 1, 3, 1
SIZE_BYTES = 64 * SECTOR_BYTES


@pytest.mark.skipif(not CUTS, reason="it takes minutes; CONVERTD_TEST_POWER_CUT=5 cuts the power five times")
@pytest.mark.timeout(7200)
def test_what_was_said_to_be_safe_outlives_power_cuts() -> None:
    if reason := guest.unavailable():
        pytest.skip(reason)
    try:
        guest.kernel()
    except RuntimeError as error:
        pytest.skip(str(error))
    assert power_cut.run(int(CUTS), random.SystemRandom().randrange(2**32)) == []


@pytest.mark.skipif(not CUTS, reason="it takes minutes; CONVERTD_TEST_POWER_CUT=5 cuts the power five times")
@pytest.mark.timeout(7200)
def test_a_daemon_that_syncs_nothing_is_found_out() -> None:
    if reason := guest.unavailable():
        pytest.skip(reason)
    assert power_cut.run(int(CUTS), random.SystemRandom().randrange(2**32), plant="no-fsync")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[VolatileDisk]:
    with VolatileDisk(bytes(SIZE_BYTES), tmp_path / "disk.sock") as served:
        yield served


class Client:
    """As much of qemu as it takes."""

    def __init__(self, disk: VolatileDisk) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(disk.path))
        self._file = self._socket.makefile("rb")
        self._file.read(18)
        self._socket.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, 0))
        while struct.unpack(">8sIII", head := self._file.read(20))[2] != 1:
            self._file.read(struct.unpack(">8sIII", head)[3])

    def send(self, command: int, sector: int = 0, content: bytes = b"", sectors: int = 0, flags: int = 0) -> None:
        length = len(content) or sectors * SECTOR_BYTES
        head = struct.pack(">IHHQQI", 0x25609513, flags, command, 1, sector * SECTOR_BYTES, length)
        self._socket.sendall(head + content)

    def ask(self, command: int, sector: int = 0, content: bytes = b"", sectors: int = 0, flags: int = 0) -> bytes:
        self.send(command, sector, content, sectors, flags)
        assert struct.unpack(">IIQ", self._file.read(16))[1] == 0
        return self._file.read(sectors * SECTOR_BYTES)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def full(letter: bytes, sectors: int = 1) -> bytes:
    return letter * (SECTOR_BYTES * sectors)


def test_the_disk_keeps_what_was_flushed_and_loses_some_of_the_rest(disk: VolatileDisk) -> None:
    client = Client(disk)
    client.ask(WRITE, 0, full(b"f"))
    client.ask(FLUSH)
    client.ask(WRITE, 1, full(b"u"), flags=FUA)
    for sector in range(2, 60):
        client.ask(WRITE, sector, full(b"x"))
    assert client.ask(READ, 0, sectors=60) == full(b"f") + full(b"u") + full(b"x", 58)
    client.close()
    fate = disk.cut(random.Random(1))
    assert fate.kept + fate.torn + fate.lost == 58
    assert fate.kept
    assert fate.lost
    client = Client(disk)
    assert client.ask(READ, 0, sectors=2) == full(b"f") + full(b"u")
    assert client.ask(READ, 2, sectors=58).count(b"x") == SECTOR_BYTES * fate.kept
    client.close()


def test_the_disk_answers_nothing_once_the_power_has_failed(disk: VolatileDisk) -> None:
    client = Client(disk)
    disk.fail_at(2)
    client.ask(WRITE, 0, full(b"a"))
    client.send(WRITE, 1, full(b"b"))
    client.send(FLUSH)
    assert disk.failed.wait(30)
    disk.cut(random.Random(3))
    with pytest.raises((struct.error, ConnectionError)):
        client.ask(FLUSH)
    client.close()

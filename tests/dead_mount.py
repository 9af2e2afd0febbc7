"""A mount whose server is there no more: whoever asks it for anything waits, for as long as it is mounted."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DETACH = 2
NOSUID_NODEV = 2 | 4
INIT = 26
REQUEST = "IIQ"
PROTOCOL = (7, 26)


@contextmanager
def dead_mount(folder: Path) -> Iterator[Path]:
    """Mount one at `folder`, which is made. Skips the test where nothing may be mounted."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error.strerror}")
    try:
        options = f"fd={server},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
        if libc.mount(b"fuse", os.fsencode(folder), b"fuse", NOSUID_NODEV, options.encode()):
            pytest.skip(f"nothing can be mounted here: {os.strerror(ctypes.get_errno())}")
        try:
            _say_hello(server)
            yield folder
        finally:
            libc.umount2(os.fsencode(folder), DETACH)
    finally:
        os.close(server)  # whoever still waits gets an error


def _say_hello(server: int) -> None:
    """The only answer that there ever is."""
    request = os.read(server, 1 << 17)
    _, operation, unique = struct.unpack_from(REQUEST, request)
    assert operation == INIT
    answer = struct.pack("4I2H2I2H8I", *PROTOCOL, 0, 0, 12, 12, 1 << 16, 1, 0, 0, *[0] * 8)
    os.write(server, struct.pack("IiQ", 16 + len(answer), 0, unique) + answer)

"""Where the Markdown of a result lies until it is delivered: in memory, or mapped from an unnamed file of the spool.

Every worker has a result in hand, so that large ones in memory would come to as many times their size as there are
workers. The pages of a mapped file belong to the kernel, which takes them back as it needs them.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

from daemon.errors import EnvironmentProblem
from daemon.files import unnamed, write_all

SPOOLED_ABOVE_BYTES = 2 << 20


def kept(pieces: Iterable[bytes], size_bytes: int, spool: str) -> bytes | memoryview:
    """The pieces, which are so long together, as one. `spool` is a folder, or empty where there is none.

    Raises EnvironmentProblem where the spool cannot take them, and whatever `pieces` raises.
    """
    if not spool or size_bytes <= SPOOLED_ABOVE_BYTES:
        return b"".join(pieces)
    fd = _opened(spool)
    try:
        for piece in pieces:  # written, not through the mapping: a full disk would be a signal there
            _written(fd, piece, spool)
        return memoryview(mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ))
    finally:
        os.close(fd)


def _opened(spool: str) -> int:
    try:
        return unnamed(spool)
    except OSError as error:
        raise _problem(spool, error) from error


def _written(fd: int, piece: bytes, spool: str) -> None:
    try:
        write_all(fd, piece)
    except OSError as error:
        raise _problem(spool, error) from error


def _problem(spool: str, error: OSError) -> EnvironmentProblem:
    message = f"a result cannot be kept in {spool}: {error.strerror}"
    return EnvironmentProblem(message, "Make room there; convertd goes on by itself.")

"""Where the Markdown of a result lies until it is delivered: in memory, or mapped from an unnamed file of the spool.

Every worker has a result in hand, so that large ones in memory would come to as many times their size as there are
workers. The pages of a mapped file belong to the kernel, which takes them back as it needs them.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

from daemon import spool
from daemon.errors import Kind, TransientError
from daemon.files import write_all

SPOOLED_ABOVE_BYTES = 2 << 20


def kept(pieces: Iterable[bytes], size_bytes: int, folder: str) -> bytes | memoryview:
    """The pieces, which are so long together, as one. `folder` is the spool, or empty where there is none.

    Raises EnvironmentProblem and TransientError where the spool cannot take them, and whatever `pieces` raises.
    """
    if not folder or size_bytes <= SPOOLED_ABOVE_BYTES:
        return b"".join(pieces)
    fd = spool.room(folder, size_bytes)
    try:
        for piece in pieces:  # written, not through the mapping: a sick disk would be a signal there
            _written(fd, piece)
        return memoryview(mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ))
    finally:
        os.close(fd)


def _written(fd: int, piece: bytes) -> None:
    try:
        write_all(fd, piece)
    except OSError as error:  # to the caller it would be the child's end
        message = f"a result cannot be kept in the spool: {error.strerror}"
        raise TransientError(Kind.INTERNAL, message, "Mend the disk of state_dir, then retry.") from error

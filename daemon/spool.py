"""Room in the spool for what is too large for memory: files without a name, so that a crash leaves nothing behind."""

from __future__ import annotations

import errno
import os
import threading

from daemon.errors import EnvironmentProblem, Kind, TransientError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def room(folder: str, size_bytes: int) -> int:
    """A descriptor, to be written and read, of a new file in this folder that has so many bytes of the disk.

    Raises EnvironmentProblem where the disk is full and TransientError where it is sick: a full disk is better met
    before there is something to write than after.
    """
    try:
        fd = _unnamed(folder)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        message = f"the spool {folder} has no room for {size_bytes:,} bytes: {error.strerror}"
        if error.errno in _NO_ROOM:
            hint = "Free space on the disk of state_dir; convertd goes on by itself."
            raise EnvironmentProblem(message, hint, certain=True) from error
        raise TransientError(Kind.INTERNAL, message, "Mend the disk of state_dir, then retry.") from error
    return fd


def _unnamed(folder: str) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOTSUP):
            raise
    path = os.path.join(folder, f"{threading.get_ident()}-{os.urandom(8).hex()}.tmp")
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd

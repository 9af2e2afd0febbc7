"""The folder of documents that were handed in: copied here durably, kept until they are converted.

A file has its final name only once it is whole and synced. What has no job, because a crash came between, is swept at
the next start; nobody was told that it had been taken.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from daemon.errors import DocumentError, EnvironmentProblem, Kind, TransientError
from daemon.faults import Fault, no_fault
from daemon.files import fsync_directory, write_all

BUFFER_BYTES = 1 << 20
RESERVE_BYTES = 64 << 20
"""So much of the disk is left free: the job table lies there too, and without it nothing would ever be converted."""
CHANGED = "Wait until nobody writes it any more, then submit it again."
_TEMPORARY = b".tmp"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy in the folder, by its name there."""

    name: bytes
    sha256: str
    size_bytes: int


class Intake:
    """The documents in one folder. Thread-safe. `fault` is called with a label before each step, for tests."""

    def __init__(self, folder: str, fault: Fault = no_fault) -> None:
        self._folder = os.fsencode(folder)
        self._fault = fault

    def copy(self, fd: int, size_bytes: int, limit_bytes: int) -> Copied:
        """Copy the file of this descriptor, which is neither closed nor moved. Durable after the next `sync`.

        Reads no more than `size_bytes`, which is what its owner has found. A file that is written meanwhile is refused
        rather than copied half old, half new. Raises DocumentError, TransientError and EnvironmentProblem; then nothing
        is left of it.
        """
        try:
            before = os.fstat(fd)
        except OSError as error:
            raise _unreadable(error) from error
        if not stat.S_ISREG(before.st_mode):
            raise DocumentError(Kind.UNREADABLE, "it is not a regular file", "Submit a file.")
        if size_bytes > limit_bytes or before.st_size > limit_bytes:
            size = max(size_bytes, before.st_size)
            raise DocumentError(Kind.TOO_LARGE, f"it has {size:,} bytes; limits.file_size allows {limit_bytes:,}")
        name = secrets.token_hex(16).encode()
        temporary = self._path(name + _TEMPORARY)
        try:
            digest = self._write(fd, size_bytes, temporary)
            if not _same(before, os.fstat(fd), size_bytes):
                raise TransientError(Kind.UNREADABLE, "it changed while it was copied", CHANGED)
            self._fault("intake rename")
            os.rename(temporary, self._path(name))
        except OSError as error:
            raise _unwritable(error, size_bytes) from error
        finally:
            with suppress(OSError):
                os.unlink(temporary)
        return Copied(name, digest, size_bytes)

    def sync(self) -> None:
        """Make the names of all copies durable. Raises EnvironmentProblem."""
        self._fault("intake sync")
        try:
            fsync_directory(self._folder)
        except OSError as error:
            raise _unwritable(error, 0) from error

    def open(self, name: bytes) -> int:
        """A descriptor of a copy. Raises OSError."""
        return os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def remove(self, names: Iterable[bytes]) -> None:
        """Remove copies, those that are there, durably. Raises OSError."""
        removed = False
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(self._path(name))
                removed = True
        if removed:
            fsync_directory(self._folder)

    def sweep(self, wanted: Callable[[Sequence[bytes]], set[bytes]]) -> int:
        """At start: remove what nobody wants, by its name; returns how many. An error leaves them for another time.

        Not while `copy` may be called: what has just been copied has no job yet.
        """
        with suppress(OSError):
            names = os.listdir(self._folder)
            unwanted = set(names) - wanted(names)
            self.remove(unwanted)
            return len(unwanted)
        return 0

    def _path(self, name: bytes) -> bytes:
        if b"/" in name or name in (b"", b".", b".."):
            raise ValueError(f"not a name of a copy: {name!r}")
        return os.path.join(self._folder, name)

    def _write(self, fd: int, size_bytes: int, path: bytes) -> str:
        """Copy so many bytes to a new file, synced; returns their digest."""
        self._fault("intake copy")
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._require_room(target, size_bytes)
            digest = _copy(fd, target, size_bytes)
            self._fault("intake copied")
            os.fsync(target)
        finally:
            os.close(target)
        return digest

    def _require_room(self, target: int, size_bytes: int) -> None:
        if size_bytes:
            os.posix_fallocate(target, 0, size_bytes)
        disk = os.fstatvfs(target)
        if disk.f_bavail * disk.f_frsize < RESERVE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _copy(fd: int, target: int, size_bytes: int) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(size_bytes, BUFFER_BYTES)))
    offset = 0
    while offset < size_bytes:
        try:
            count = os.preadv(fd, [buffer[: size_bytes - offset]], offset)
        except OSError as error:
            raise _unreadable(error) from error
        if count == 0:
            raise TransientError(Kind.UNREADABLE, "it was cut short while it was copied", CHANGED)
        digest.update(buffer[:count])
        write_all(target, buffer[:count])
        offset += count
    return digest.hexdigest()


def _same(before: os.stat_result, after: os.stat_result, size_bytes: int) -> bool:
    """Whether the file is still what its owner has found, and what it was when it was opened here."""
    times = (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    return times and before.st_size == after.st_size == size_bytes


def _unreadable(error: OSError) -> TransientError:
    return TransientError(Kind.UNREADABLE, f"it cannot be read: {error.strerror}", "Check it, then submit it again.")


def _unwritable(error: OSError, size_bytes: int) -> EnvironmentProblem:
    room = f" for {size_bytes:,} bytes" if error.errno in _NO_ROOM else ""
    return EnvironmentProblem(
        f"state_dir has no room{room}: {error.strerror}" if room else f"state_dir cannot be written: {error.strerror}",
        "Free space on the disk of state_dir or mend it, then submit again.",
    )

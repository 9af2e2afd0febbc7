"""A file that is written, looked at and taken away again, to find out what can be done in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import NamedTuple

from daemon.files import found_in_other_case, write_all, written_by_others
from daemon.sinks.folder import CANARY_BYTES, CANARY_PREFIX

STALE_SECONDS = 3600.0
SWEPT_ENTRIES = 10_000
TRIES = 2
"""A daemon that starts just now sweeps its sinks, and takes the canary for one of its own."""
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


class Failed(Exception):
    """A step did not succeed: `step` names it, `error` says why."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(f"{step}: {error.strerror}")
        self.step = step
        self.error = error


class Abilities(NamedTuple):
    """What works in a folder besides writing, renaming and removing. `skew_seconds` is how far the clock that stamps
    its files is ahead of ours; `folds` says that names which differ in case only are one."""

    locks: bool
    leases: bool
    skew_seconds: float
    folds: bool = False


def try_out(folder: bytes) -> Abilities:
    """Write, sync, read, lock, lease, rename and remove a hidden file in an existing folder.

    Nothing is left behind: neither where a step fails (Failed) nor where the caller is interrupted. What a kill has
    left is taken away by the next call, and in a sink by the daemon as well.
    """
    with _opened(folder) as directory:
        _sweep(directory)
        for left in reversed(range(TRIES)):
            try:
                return _try_once(directory)
            except Failed as failed:
                if not left or failed.error.errno != errno.ENOENT:
                    raise
    raise AssertionError("the last try raises")


def _try_once(directory: int) -> Abilities:
    name = CANARY_PREFIX + secrets.token_hex(8).encode()
    renamed = name + b"-renamed"
    try:
        return _steps(directory, name, renamed)
    finally:
        for left in (name, renamed):
            with suppress(OSError):
                os.unlink(left, dir_fd=directory)


def _steps(directory: int, name: bytes, renamed: bytes) -> Abilities:
    content = secrets.token_bytes(CANARY_BYTES)
    with _step("making a file"):
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=directory)
    try:
        with _step("writing"):
            write_all(fd, content)
            skew_seconds = os.fstat(fd).st_mtime - time.time()
        with _step("fsync"):
            os.fsync(fd)
        with _step("reading back"):
            if os.pread(fd, CANARY_BYTES + 1, 0) != content:
                raise OSError(errno.EIO, "other bytes came back than were written")
        locks = _locks(fd, directory, name)
    finally:
        os.close(fd)
    leases = _leases(directory, name)
    with _step("looking for it"):
        folds = found_in_other_case(name, dir_fd=directory)
    with _step("renaming"):
        os.rename(name, renamed, src_dir_fd=directory, dst_dir_fd=directory)
    with _step("removing"):
        os.unlink(renamed, dir_fd=directory)
    with _step("fsync of the folder"):
        _sync_folder(directory)
    return Abilities(locks, leases, skew_seconds, folds)


def _locks(fd: int, directory: int, name: bytes) -> bool:
    """Whether a lock keeps a second one out."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other = os.open(name, os.O_RDWR | _FLAGS, dir_fd=directory)
    except OSError:
        return False
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(other)
    return False


def _leases(directory: int, name: bytes) -> bool:
    """Whether the kernel tells that nobody has the file open for writing."""
    with _step("opening it again"):
        fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=directory)
    try:
        return written_by_others(fd) is False
    finally:
        os.close(fd)


def _sync_folder(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def _sweep(directory: int) -> None:
    """What an earlier call was killed over. Only what is old: the daemon has canaries of its own in its sinks."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in islice(entries, SWEPT_ENTRIES):
            if os.fsencode(entry.name).startswith(CANARY_PREFIX):
                with suppress(OSError):
                    if time.time() - os.lstat(entry.name, dir_fd=directory).st_mtime > STALE_SECONDS:
                        os.unlink(entry.name, dir_fd=directory)


@contextmanager
def _opened(folder: bytes) -> Iterator[int]:
    with _step("opening the folder"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(name, error) from error

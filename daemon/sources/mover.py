"""What moving a file to another folder needs: free names, copies across file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

from daemon.files import open_regular, write_all

CHUNK_BYTES = 1 << 20
LONGEST_NAME_BYTES = 255
LONGEST_EXTENSION_BYTES = 32


def numbered(name: bytes) -> Iterator[bytes]:
    """The name itself, then `STEM~1.EXT`, `STEM~2.EXT` and so on, none longer than a name may be."""
    yield name
    stem, extension = os.path.splitext(name)
    if len(extension) > LONGEST_EXTENSION_BYTES:
        stem, extension = name, b""
    for number in count(1):
        suffix = b"~%d" % number + extension
        yield _cut(stem, LONGEST_NAME_BYTES - len(suffix)) + suffix


def _cut(stem: bytes, length: int) -> bytes:
    """At most so many bytes of it, no UTF-8 character halved."""
    if len(stem) <= length:
        return stem
    while length > 0 and stem[length] & 0xC0 == 0x80:
        length -= 1
    return stem[:length]


def copy_durably(source_dir_fd: int, source: bytes, target_dir_fd: int, target: bytes) -> None:
    """Copy content, mode and times to `target`, synced but for the folder. Replaces what a crash left there."""
    with suppress(FileNotFoundError):
        os.unlink(target, dir_fd=target_dir_fd)
    source_fd = open_regular(source, dir_fd=source_dir_fd)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target_fd = os.open(target, flags, 0o600, dir_fd=target_dir_fd)
        try:
            for chunk in _chunks(source_fd):
                write_all(target_fd, chunk)
            _copy_status(os.fstat(source_fd), target_fd)
            os.fsync(target_fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(target, dir_fd=target_dir_fd)
            raise
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def same_content(dir_fd_a: int, name_a: bytes, dir_fd_b: int, name_b: bytes) -> bool:
    """Whether two regular files hold the same bytes."""
    fd_a = open_regular(name_a, dir_fd=dir_fd_a)
    try:
        fd_b = open_regular(name_b, dir_fd=dir_fd_b)
        try:
            if os.fstat(fd_a).st_size != os.fstat(fd_b).st_size:
                return False
            return all(a == b for a, b in zip(_chunks(fd_a), _chunks(fd_b), strict=True))
        finally:
            os.close(fd_b)
    finally:
        os.close(fd_a)


def _chunks(fd: int) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(fd, CHUNK_BYTES, offset):
        offset += len(chunk)
        yield chunk


def _copy_status(status: os.stat_result, fd: int) -> None:
    with suppress(OSError):  # only root may give files away, and some file systems know no owners
        os.fchown(fd, status.st_uid, status.st_gid)
    with suppress(OSError):
        os.fchmod(fd, status.st_mode & 0o777)
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))

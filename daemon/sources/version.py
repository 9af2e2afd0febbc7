"""The version of a file in a folder: size, mtime, inode and ctime in one string."""

from __future__ import annotations

import os

GRAINS_NS = (100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""To which file systems round times: NTFS and CIFS, UDF, what lies behind some servers, exFAT, ext3, FAT."""


def file_version(status: os.stat_result) -> str:
    """What tells this content of a file from any other: `SIZE-MTIME_NS-INODE-CTIME_NS`."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}-{status.st_ctime_ns}"


def same_but_for_identity(version_a: str, version_b: str) -> bool:
    """Whether at most inode and ctime differ, as after a chmod or a copy back: then only a digest can tell."""
    return version_a.rsplit("-", 2)[0] == version_b.rsplit("-", 2)[0]


def may_be_copy(version: str, original: str) -> bool:
    """Whether this file may be the other one, moved: as `same_but_for_identity`, but the time may have been rounded.

    A time that is not as round as that of such a file system is another one, however near it is.
    """
    size, time_ns = _size_and_time(version)
    original_size, original_ns = _size_and_time(original)
    if size != original_size:
        return False
    off_ns = abs(time_ns - original_ns)
    return off_ns == 0 or any(off_ns < grain and time_ns % grain == 0 for grain in GRAINS_NS)


def same_file(version_a: str, version_b: str) -> bool:
    """Whether at most the ctime differs, as after a rename: size, mtime and inode are the same."""
    return version_a.rsplit("-", 1)[0] == version_b.rsplit("-", 1)[0]


def _size_and_time(version: str) -> tuple[int, int]:
    size, _, time_ns = version.rsplit("-", 2)[0].partition("-")
    return int(size), int(time_ns)

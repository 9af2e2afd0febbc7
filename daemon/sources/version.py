"""The version of a file in a folder: size, mtime, inode and ctime in one string."""

from __future__ import annotations

import os


def file_version(status: os.stat_result) -> str:
    """What tells this content of a file from any other: `SIZE-MTIME_NS-INODE-CTIME_NS`."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}-{status.st_ctime_ns}"


def same_but_for_identity(version_a: str, version_b: str) -> bool:
    """Whether at most inode and ctime differ, as after a chmod or a copy back: then only a digest can tell."""
    return version_a.rsplit("-", 2)[0] == version_b.rsplit("-", 2)[0]


def same_file(version_a: str, version_b: str) -> bool:
    """Whether at most the ctime differs, as after a rename: size, mtime and inode are the same."""
    return version_a.rsplit("-", 1)[0] == version_b.rsplit("-", 1)[0]

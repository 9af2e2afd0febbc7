"""The version of an object: its size and its etag in one string."""

from __future__ import annotations

import re

from daemon.model import Job

_DIGEST = re.compile(r"[0-9a-f]{32}")


def object_version(etag: str, size_bytes: int) -> str:
    """What tells this content of an object from any other: `SIZE-ETAG`."""
    return f"{size_bytes}-{etag}"


def etag_of(version: str) -> str:
    """The etag in a version."""
    return version.partition("-")[2]


def may_hold_the_same(version_a: str, version_b: str) -> bool:
    """Whether the same bytes can have both: an etag of an upload in parts is no digest of the content."""
    size_a, _, etag_a = version_a.partition("-")
    size_b, _, etag_b = version_b.partition("-")
    return size_a == size_b and not (_DIGEST.fullmatch(etag_a) and _DIGEST.fullmatch(etag_b))


def is_version(job: Job, etag: str, size_bytes: int) -> bool:
    """Whether this is still the version of the job. Moving may have changed the etag, so that of a moved object says
    nothing."""
    if object_version(etag, size_bytes) == job.version:
        return True
    return job.location is not None and size_bytes == job.size_bytes

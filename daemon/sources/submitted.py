"""The documents that commands have handed in. No watch's source: nothing is discovered here, each brings its job along.

A copy lies in the intake's folder, private to the daemon, until its job is completed; that of a job that failed or was
cancelled stays for a retry and goes when the job is pruned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.errors import Kind, SourceChanged, SourceVanished, TransientError
from daemon.intake import Intake
from daemon.model import Disposal, Job, State
from daemon.sources.base import Fetched

FOLDER = b"submitted"
"""Where in the sink the results are, below it a folder for each batch."""


def source_of(batch: str, name: bytes) -> bytes:
    """The path that a document handed in to this batch has instead of one in a source."""
    return b"/".join((FOLDER, batch.encode(), name))


class SubmittedSource:
    """The `Documents` of jobs that are `submitted`, whatever their watch. All methods may be called from any thread."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    @contextmanager
    def fetch(self, job: Job) -> Iterator[Fetched]:
        fd = self._open(job)
        try:
            fetched = Fetched(fd, job.size_bytes)
            self.verify(job, fetched)
            yield fetched
        finally:
            os.close(fd)

    def verify(self, job: Job, fetched: Fetched | None) -> None:
        # Nobody but the daemon writes here, so the size tells all that can go wrong: a disk that lost a part of it.
        if fetched is not None and os.fstat(fetched.fd).st_size != job.size_bytes:
            raise SourceChanged("the copy of the document is damaged")

    def recheck(self, source: bytes) -> None:
        pass  # nothing is discovered

    def may_be_same(self, earlier: str, later: str) -> bool:
        return False  # a version is a digest

    def settled(self, job: Job, state: State) -> None:
        pass  # nobody else waits for it

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        """Delete the copy, whatever the watch does with documents of its own source."""
        if job.location is not None:
            try:
                self._intake.remove([job.location])
            except OSError as error:
                raise TransientError(
                    Kind.UNREADABLE,
                    f"the copy of the document cannot be removed: {error.strerror}",
                    "Mend the permissions or the disk of state_dir; convertd tries again by itself.",
                ) from error
        return None

    def has_begun(self, job: Job) -> bool:
        return False  # no newer version takes its name

    def _open(self, job: Job) -> int:
        try:
            if job.location is not None:
                return self._intake.open(job.location)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise TransientError(Kind.UNREADABLE, f"the document cannot be read: {error.strerror}") from error
        raise SourceVanished("the copy of the document is no longer in state_dir")

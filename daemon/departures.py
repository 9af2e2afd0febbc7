"""Watches that get another source: what disposals have hidden in the one that is left gets its name back before.

Afterwards it would be looked for in the new source, and no writer or reader finds a document under a hidden name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from daemon.globs import Filter
from daemon.jobs import JobTable
from daemon.model import Job
from daemon.sources.folder import FolderSource
from daemon.sources.hidden import give_back

Held = Callable[[Collection[int]], AbstractContextManager[set[int]]]
"""While it lasts nothing is disposed of for these jobs but those that it yields; see `Janitor.held`."""


@contextmanager
def departing(jobs: JobTable, held: Held, sources: Mapping[str, str]) -> Iterator[None]:
    """To be entered before these sources are recorded, by watch, and left once they are served. Raises
    EnvironmentProblem where the job table cannot be read.

    No disposal is called off: where the new source is the old folder under another name, it goes on there. What cannot
    be brought back now stays hidden.
    """
    left = {watch: place for watch, place in jobs.sources().items() if _is_left(place, sources.get(watch, place))}
    due = [job for job, _ in jobs.disposals.due() if job.watch in left and _lies_in_source(job)] if left else []
    with held([job.id for job in due]) as stuck:
        at_rest = [job for job in due if job.id not in stuck]
        give_back({watch: _folder(place) for watch, place in left.items()}, at_rest)
        yield


def _is_left(old: str, new: str) -> bool:
    """Nothing is hidden in a bucket."""
    return os.path.isabs(old) and old != new


def _lies_in_source(job: Job) -> bool:
    return job.location is None and not job.submitted


def _folder(path: str) -> FolderSource:
    """To give back only: it has been there, and is not made where it is gone."""
    return FolderSource(path, Filter(["**/*"], []), silent=[path])

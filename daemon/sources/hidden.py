"""Documents that a disposal has hidden and that are not to be disposed of any more: they get their names back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial

from daemon.errors import ConvertdError
from daemon.ground import LONG_SECONDS, Patience
from daemon.model import Disposal, Job
from daemon.sources.base import Documents

KEEP = Disposal("keep")


def give_back(places: Mapping[str, Documents], jobs: Iterable[Job]) -> None:
    """Those of these jobs' documents, as far as it can be done now; `places` has them by watch.

    The janitor must not be at them. Of a place that does not answer, no other document is asked for.
    """
    patience = Patience(LONG_SECONDS)
    left = set(places)
    for job in jobs:
        if job.watch in left and not patience.answered(partial(_keep, places[job.watch], job), otherwise=False):
            left.remove(job.watch)


def _keep(documents: Documents, job: Job) -> bool:
    """Always true, but of what does not answer."""
    with suppress(ConvertdError):  # one of them says that it is kept
        documents.dispose(job, KEEP)
    return True

"""What others are told of a job's end or a batch's: the JSON of an event, the same for webhooks and commands.

Its keys are a contract with their receivers (README, "Notifications"); what an event does not have is null.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from daemon.errors import DocumentError, TransientError
from daemon.model import Job
from daemon.results import identity, rfc3339

COMPLETED = "completed"
FAILED = "failed"
BATCH_COMPLETE = "batch-complete"


def completed(job: Job, output: str, finished_at: float) -> str:
    """A document has been converted."""
    return _event(COMPLETED, finished_at, **_document(job), output=output)


def failed(job: Job, error: DocumentError | TransientError, finished_at: float) -> str:
    """A document has failed for good."""
    why = {"kind": error.kind.value, "message": error.message, "hint": error.hint}
    return _event(FAILED, finished_at, **_document(job), error=why)


def batch_complete(watch: str, batch: str, jobs: Mapping[str, int], output: str | None, finished_at: float) -> str:
    """All jobs of a batch have ended: so many in each state; `output` is its manifest."""
    return _event(BATCH_COMPLETE, finished_at, watch=watch, batch=batch, jobs=dict(jobs), output=output)


def _document(job: Job) -> dict[str, Any]:
    return {"watch": job.watch, "batch": job.batch, "job": job.id, **identity(job)}


def _event(kind: str, finished_at: float, **values: Any) -> str:
    blank = dict.fromkeys(("watch", "batch", "job", "source", "version", "output", "error"))
    event = {"id": uuid.uuid4().hex, "kind": kind, **blank, **values, "finished_at": rfc3339(finished_at)}
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "replace").decode()

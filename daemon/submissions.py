"""`submit` on the daemon's side: files that a command has opened become jobs of a batch.

Copied → synced → recorded in the job table → answered, in this order: what was answered survives a power cut, and who
got no answer asks again: the same bytes under the same name in the same batch are the same job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from daemon.config import Watch
from daemon.control import name_from_wire
from daemon.dispatch import Dispatcher
from daemon.errors import DocumentError, EnvironmentProblem, TransientError, UsageError
from daemon.faults import Fault, no_fault
from daemon.intake import Copied, Intake
from daemon.jobs import Handed, JobTable, Receipt
from daemon.naming import BATCH_BYTES, is_batch_name
from daemon.pipeline import Policy
from daemon.sources.submitted import source_of

AT_ONCE = 4
"""Requests that copy. Fewer than the control socket serves: files that are slow to read hold up no other command."""
NAME_BYTES = 255


class Submissions:
    """`submit` may be called from any thread. `served` gives the watches that are, the first configured first."""

    def __init__(
        self,
        intake: Intake,
        jobs: JobTable,
        dispatcher: Dispatcher,
        served: Callable[[], Sequence[Watch]],
        policy: Policy,
        fault: Fault = no_fault,
    ) -> None:
        self._intake = intake
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._served = served
        self._policy = policy
        self._fault = fault
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    def submit(self, request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        """`files`, each with `name` and `size_bytes`, in the order of the descriptors; a `batch`, and a `watch` and a
        `priority` or None. Answers what became of each file; `busy` where too many are at it, to be asked again."""
        names, sizes = _files(request, len(descriptors))
        batch, watch = _batch(request), self._watch(request.get("watch"))
        priority = _priority(request, watch)
        if not self._slots.acquire(blocking=False):
            return {"busy": True}
        try:
            outcomes = self._take(watch.name, batch, priority, names, sizes, descriptors)
        finally:
            self._slots.release()
        files = [
            {"name": file["name"], **_told(outcome)} for file, outcome in zip(request["files"], outcomes, strict=True)
        ]
        return {"busy": False, "watch": watch.name, "batch": batch, "files": files}

    def _take(
        self,
        watch: str,
        batch: str,
        priority: int,
        names: Sequence[bytes],
        sizes: Sequence[int],
        descriptors: Sequence[int],
    ) -> list[Receipt | DocumentError | TransientError]:
        copies: list[Copied | DocumentError | TransientError] = []
        try:
            for fd, size_bytes in zip(descriptors, sizes, strict=True):
                copies.append(self._copy(fd, size_bytes))
            self._intake.sync()
            self._fault("submit record")
            handed = [
                Handed(source_of(batch, name), f"{copy.size_bytes}-{copy.sha256}", copy.size_bytes, copy.name)
                for name, copy in zip(names, copies, strict=True)
                if isinstance(copy, Copied)
            ]
            receipts = self._jobs.submit(watch, batch, handed, priority)
        except EnvironmentProblem:
            self._remove(copy.name for copy in copies if isinstance(copy, Copied))
            raise
        self._fault("submit recorded")
        new = [receipt.new for receipt in receipts if receipt.new is not None]
        self._dispatcher.add(new)
        kept = {job.location for job in new}
        self._remove(document.location for document in handed if document.location not in kept)
        self._fault("submit answer")
        left = iter(receipts)
        return [next(left) if isinstance(copy, Copied) else copy for copy in copies]

    def _copy(self, fd: int, size_bytes: int) -> Copied | DocumentError | TransientError:
        try:
            return self._intake.copy(fd, size_bytes, self._policy.limits.file_size_bytes)
        except (DocumentError, TransientError) as error:
            return error

    def _remove(self, names: Iterable[bytes]) -> None:
        with suppress(OSError):  # it is swept at the next start
            self._intake.remove(names)

    def _watch(self, name: Any) -> Watch:
        watches = {watch.name: watch for watch in self._served()}
        if name is None and watches:
            return next(iter(watches.values()))
        if not isinstance(name, str) or name not in watches:
            raise UsageError(f"there is no watch {name}", f"The daemon serves: {', '.join(watches) or 'none'}.")
        return watches[name]


def _files(request: dict[str, Any], descriptors: int) -> tuple[list[bytes], list[int]]:
    try:
        names = [name_from_wire(file["name"]) for file in request["files"]]
        sizes = [file["size_bytes"] for file in request["files"]]
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        raise UsageError("a submission names its files and their sizes", "") from None
    if len(names) != descriptors or not names:
        raise UsageError(f"{descriptors} files were passed for {len(names)} names", "")
    for name in names:
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > NAME_BYTES:
            raise UsageError(f"not the name of a file: {name!r}", "A name has no slash and at most 255 bytes.")
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise UsageError("a size is a number of bytes", "")
    return names, sizes


def _batch(request: dict[str, Any]) -> str:
    batch = request.get("batch")
    if not isinstance(batch, str) or not is_batch_name(batch):
        raise UsageError(
            f"not the name of a batch: {batch!r}",
            f"A name has at most {BATCH_BYTES} bytes, no slash, no control character and no %XX.",
        )
    return batch


def _priority(request: dict[str, Any], watch: Watch) -> int:
    priority = request.get("priority")
    if priority is None:
        return watch.priority
    if type(priority) is not int or not 1 <= priority <= 10:
        raise UsageError(f"not a priority: {priority!r}", "It is 1 to 10; of several waiting documents 10 goes first.")
    return priority


def _told(outcome: Receipt | DocumentError | TransientError) -> dict[str, Any]:
    if not isinstance(outcome, Receipt):
        return {"error": outcome.message, "hint": outcome.hint}
    if outcome.refused:
        return {"error": outcome.refused, "hint": ""}
    return {"job": outcome.job_id, "state": outcome.state, "new": outcome.new is not None}

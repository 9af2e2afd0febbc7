"""What is checked all the time, by a thread beside the actions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from daemon.errors import ConvertdError, FatalError
from tests.chaos.accounts import ROWS, Row, converted_twice, miscounted
from tests.chaos.layout import Watch
from tests.chaos.model import Document, Model
from tests.chaos.outputs import Outputs
from tests.chaos.places import DISPOSING, Folder, Place, starts
from tests.chaos.processes import Size, size_of
from tests.chaos.world import World

FINAL = frozenset({"completed", "failed", "cancelled", "vanished", "superseded"})
DEATHS_ALLOWED = 5
"""So often a document may kill the daemon: twice beside others, and three times alone."""
SURVIVE_SECONDS = 30.0
LOOK_SECONDS, RARE_LOOK_SECONDS, RAREST_LOOK_SECONDS = 0.02, 0.7, 3.0
MOST_DESCRIPTORS = 200
MOST_RESIDENT_BYTES = 256 << 20
"""What the daemon may hold amid faults: 120 and 75 MiB were the most in some minutes; large documents come together."""
TRIES = 5
DAMAGED = "is damaged"
"""What is said of a job table that is no sound file."""


class Findings:
    """What was found, each thing once, with the number of the action after which it was. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.all: dict[str, int] = {}
        self.action = 0

    def add(self, text: str) -> None:
        with self._lock:
            self.all.setdefault(text, self.action)

    def __bool__(self) -> bool:
        return bool(self.all)


class Watchman:
    """Looks at sinks, sources, the job table and processes until it is closed."""

    def __init__(self, world: World, model: Model, findings: Findings) -> None:
        self._world, self._model, self._findings = world, model, findings
        self.outputs = Outputs(model, findings.add)
        self._states: dict[int, str] = {}
        self._strays: dict[int, float] = {}
        self._strange = 0
        self.largest = Size(0, 0, 0)
        """What the daemon held at most, of each kind, by now."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchman")

    def __enter__(self) -> Watchman:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._look_at_everything()  # what came since the last time

    def _run(self) -> None:
        rare_due = rarest_due = 0.0
        while not self._end.wait(LOOK_SECONDS):
            if time.monotonic() >= rarest_due:
                self._guarded(self._look_at_table)
                self._guarded(self._look_at_size)
                rarest_due = time.monotonic() + RAREST_LOOK_SECONDS
            if time.monotonic() >= rare_due:
                self._look_at_everything()
                rare_due = time.monotonic() + RARE_LOOK_SECONDS
            for watch in self._world.watches.values():
                if watch.in_folder and isinstance(watch.sink, Folder):
                    self._guarded(partial(self._look_at, watch))

    def _look_at_everything(self) -> None:
        for watch in self._world.watches.values():
            self._guarded(partial(self._look_at, watch))
        self._guarded(self._look_at_jobs)
        self._guarded(self._look_at_processes)

    def _guarded(self, look: Callable[[], None]) -> None:
        """A look that fails is a finding too, unless the bucket of the campaign itself was too slow to answer."""
        try:
            look()
        except Exception as error:
            if type(error).__module__.startswith(("botocore", "urllib3")):
                return
            self._findings.add(f"the watchman failed: {error!r}")

    def _look_at(self, watch: Watch) -> None:
        self.outputs.look(watch)
        present = watch.source.names()
        for document in self._model.of(watch.name):
            if document.name not in present and document.current is not None and not document.submitted:
                self._gone(watch, document)

    def _gone(self, watch: Watch, document: Document) -> None:
        """Its source is not there. Nobody may be just writing it, and it is looked for several times: it may come and
        go between two looks."""
        if not document.lock.acquire(blocking=False):
            return
        try:
            if document.current is None or self._world.away is not None:
                return
            for _ in range(TRIES):
                complaint = self.missing(watch, document)
                if complaint is None or watch.source.has(document.name):
                    return
                threading.Event().wait(0.05)
            self._findings.add(complaint or "")
        finally:
            document.lock.release()

    def missing(self, watch: Watch, document: Document) -> str | None:
        """What is missing of a document whose source is gone; None where all is in order."""
        about = f"{watch.name}: the source {document.name} is gone"
        version = document.current
        if version is None or watch.source.has(document.name):
            return None
        if lies_in(watch.failed, document):
            return None if self._has_ended(document, "failed") else about + ", and its job has not failed"
        if watch.action == "keep":
            return about + ", of a watch that keeps"
        seen = self.outputs.look(watch)
        if seen.sidecar.get(document.name) != version or seen.markdown.get(document.name) != version:
            return about + " without its result"
        if watch.done is not None and not is_moved(watch, document):
            return about + " and not where it should have been moved to"
        return None if self._has_ended(document, "completed") else about + ", and its job is not completed"

    def _has_ended(self, document: Document, how: str) -> bool:
        rows = self._jobs_of(document)
        retried = any(job_id in self._model.retried for job_id, _ in rows)
        return retried or any(state == how for job_id, state in rows if job_id > document.floor)

    def _jobs_of(self, document: Document) -> list[tuple[Any, ...]]:
        return self._world.rows(
            "SELECT j.id, j.state FROM jobs j JOIN watches w ON w.id = j.watch WHERE w.name = ? AND j.source = ?",
            document.watch,
            os.fsencode(document.name),
        )

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _look_at_jobs(self) -> None:
        """No job leaves a final state unless an operator has asked for it, none that has ended is forgotten, and no
        version is converted by two."""
        retried = set(self._model.retried)
        rows = [Row(*row) for row in self._world.rows(ROWS)]
        if not rows:
            return
        now = {row.id: row.state for row in rows}
        for job_id, before in self._states.items():
            state = now.get(job_id, "forgotten")
            if before in FINAL and state != before and job_id not in retried | self._model.retried:
                self._findings.add(f"job {job_id} was {before} and is now {state}")
        self._states = now
        for complaint in converted_twice(rows):
            self._findings.add(complaint)

    def _look_at_table(self) -> None:
        """It is sound, and its counters are right, at every moment. What cannot be read just now may be on a full disk,
        or not be there yet."""
        try:
            said = [str(row[0]) for row in self._world.daemon.rows("PRAGMA quick_check")]
        except FatalError as error:
            said = [error.message] if DAMAGED in error.message else []
        except (ConvertdError, OSError):
            return
        if said not in ([], ["ok"]):
            self._findings.add(f"PRAGMA quick_check: {said[:5]}")
        for complaint in miscounted(self._world):
            self._findings.add(complaint)

    # -- processes -----------------------------------------------------------------------------------------------

    def _look_at_processes(self) -> None:
        self._world.children()
        now = time.monotonic()
        strays = set(self._world.survivors())
        self._strays = {pid: self._strays.get(pid, now) for pid in strays}
        for pid, since in self._strays.items():
            if now - since > SURVIVE_SECONDS:
                self._findings.add(f"converter {pid} has survived its daemon")
        for line in self._world.journal("violations"):
            self._findings.add(line)
        for text in self._world.strange_ends[self._strange :]:
            self._strange += 1
            self._findings.add(text)
        poisoned = self._world.journal("poisoned")
        for job in set(poisoned):
            if (deaths := poisoned.count(job)) > DEATHS_ALLOWED:
                self._findings.add(f"job {job} has killed the daemon {deaths} times")

    def _look_at_size(self) -> None:
        try:
            size = size_of(self._world.pid)
        except OSError:  # it has ended
            return
        self.largest = Size(*map(max, self.largest, size))
        for complaint in too_large(size, MOST_DESCRIPTORS, MOST_RESIDENT_BYTES):
            self._findings.add(f"the daemon {complaint}")


def too_large(size: Size, most_descriptors: int, most_resident_bytes: int) -> Iterator[str]:
    """What a process has too much of."""
    if size.descriptors > most_descriptors:
        yield f"has {size.descriptors} descriptors open"
    if size.resident_bytes > most_resident_bytes:
        yield f"holds {size.resident_bytes >> 20} MiB"


def is_moved(watch: Watch, document: Document) -> bool:
    """Whether its content lies where documents are moved to, under its name or one like it; one that is moved from
    there to there, after a retry, may be hidden as long as a dead daemon does not come back."""
    return lies_in(watch.done, document)


def lies_in(place: Place | None, document: Document) -> bool:
    """Whether its content lies there, under its name, one like it, or hidden."""
    version, stem = document.current, document.name.rpartition(".")[0]
    if place is None or version is None:
        return False
    names = [name for name in place.names() if name.startswith(stem) or starts(name, DISPOSING)]
    return any(place.read(name) == version.content for name in names)

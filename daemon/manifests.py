"""The manifest of a batch: one line a document, in the sink once the batch is complete.

Written first and recorded then, so a crash between makes it once more; what came meanwhile keeps the batch open, and
the manifest is replaced when it completes again.
"""

from __future__ import annotations

import mmap
import tempfile
import threading
import time
from collections.abc import Callable, Mapping

from daemon import batches
from daemon.batches import Batch, Batches
from daemon.db import Connection
from daemon.errors import ConvertdError, EnvironmentProblem, FatalError, Stopped
from daemon.logs import Log
from daemon.naming import MANIFEST, manifest_name
from daemon.sinks.base import Sink
from daemon.words import json_text

AT_ONCE = 8
AGAIN_SECONDS = 60.0
LOOK_LINES = 1000

News = Callable[[Connection, Batch, Mapping[str, int], str], None]
"""What is to be recorded in the transaction that completes a batch: it, its jobs by state, where its manifest is."""


def no_news(db: Connection, batch: Batch, jobs: Mapping[str, int], output: str) -> None:
    """Nobody wants to know."""


class Manifests:
    """Completes the batches of one watch. `look` is to be called again and again, `finish` at the end, from any thread.

    A manifest is made in an unnamed file of the folder `spool`, so no batch is too large for the memory.
    """

    def __init__(
        self,
        watch: str,
        sink: Sink,
        batches: Batches,
        spool: str,
        log: Log,
        news: News = no_news,
        announce: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = watch
        self._sink = sink
        self._batches = batches
        self._spool = spool
        self._log = log
        self._news = news
        self._announce = announce
        self._monotonic = monotonic
        self._looking = threading.Lock()
        self._again: dict[int, float] = {}

    def look(self, stopped: Callable[[], bool]) -> None:
        """Write the manifests that are due, a few at most. Raises FatalError where the job table is lost.

        One that cannot be written is tried again later; the others do not wait for it.
        """
        with self._looking:
            self._look(stopped)

    def finish(self, stopped: Callable[[], bool], sick: Callable[[], bool]) -> None:
        """Write all the manifests that are due: nobody looks again. Raises FatalError where the job table is lost.

        Each is tried once, also those behind one that cannot be written, unless that is because the surroundings are
        `sick`: each of the others would wait for a server that does not answer.
        """
        with self._looking:
            for batch in self._due(None):
                if stopped() or (not self._tried(batch, stopped) and sick()):
                    return

    def _due(self, limit: int | None) -> list[Batch]:
        try:
            return self._batches.due(self._watch, limit)
        except EnvironmentProblem:
            return []  # whoever writes to the job table says so

    def _look(self, stopped: Callable[[], bool]) -> None:
        due = self._due(AT_ONCE + len(self._again))
        self._again = {batch.id: self._again[batch.id] for batch in due if batch.id in self._again}
        for batch in due:
            if stopped():
                return
            if self._monotonic() >= self._again.get(batch.id, 0.0) and not self._tried(batch, stopped):
                return

    def _tried(self, batch: Batch, stopped: Callable[[], bool]) -> bool:
        try:
            self._complete(batch, stopped)
        except FatalError:
            raise
        except Stopped:
            return False
        except ConvertdError as error:
            self._again[batch.id] = self._monotonic() + AGAIN_SECONDS
            self._log.error(
                "manifest not written",
                watch=self._watch,
                batch=batch.name,
                error=error.message,
                hint=error.hint,
                again_in_seconds=AGAIN_SECONDS,
            )
            return False
        self._again.pop(batch.id, None)
        return True

    def _complete(self, batch: Batch, stopped: Callable[[], bool]) -> None:
        jobs = batches.counts(self._batches.rows, batch)
        if not jobs:
            self._batches.drop(batch)
            return
        content = self._written(batch, stopped)
        output = self._sink.publish(manifest_name(batch.name, self._sink.name_bytes), {MANIFEST: content})
        if self._batches.complete(batch, lambda db: self._news(db, batch, jobs, output)):
            self._announce()
            self._log.info("batch complete", watch=self._watch, batch=batch.name, **jobs, output=output)

    def _written(self, batch: Batch, stopped: Callable[[], bool]) -> memoryview:
        """The manifest, in a file that goes with the last reference to it."""
        try:
            with tempfile.TemporaryFile(dir=self._spool) as file:
                for number, document in enumerate(batches.documents(self._batches.rows, batch)):
                    if number % LOOK_LINES == 0 and stopped():
                        raise Stopped("stopped while a manifest was made")
                    file.write(json_text(document.facts()).encode() + b"\n")
                if not file.tell():
                    return memoryview(b"")  # pruned just now
                file.flush()
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise EnvironmentProblem(
                f"the spool {self._spool} cannot be written: {error.strerror}", "Free space on the disk of state_dir."
            ) from error

"""fetch → convert → deliver for one job. Start reading here.

The pipeline only moves a document from its source to its sink; it raises the errors of `daemon.errors` and leaves the
judgement of them, and the job's state, to the worker that runs it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from daemon.cancellations import Cancellations
from daemon.config import Limits, Retry, Watch
from daemon.errors import Cancelled, DocumentError, FatalError, Kind, SourceChanged, SourceVanished
from daemon.files import pieces
from daemon.jobs import JobTable
from daemon.meters import UNMETERED, Meter
from daemon.model import Conversion, Disposal, Job, Stage, State
from daemon.naming import output_name
from daemon.pool import ConverterPool
from daemon.results import ERROR, SIDECAR, named_source, result_files
from daemon.sinks.base import Origin, Sink
from daemon.sources.base import Documents, Fetched, Source, source_name

KEEP, DELETE = Disposal("keep"), Disposal("delete")
TRANSFER_SECONDS = 300.0
"""What fetching a document and delivering its results takes at most, unless a server does not answer."""


@dataclass(frozen=True, slots=True)
class Route:
    """One configured watch with the objects that carry it out; `submitted` is where documents lie that were handed in
    and do not come from its source."""

    watch: Watch
    source: Source
    sink: Sink
    submitted: Documents

    def documents(self, job: Job) -> Documents:
        """Where the document of this job is."""
        return self.submitted if job.submitted else self.source

    def on_success(self, job: Job) -> Disposal:
        """What becomes of it once it is converted: the copy of one that was handed in is needed no more."""
        return DELETE if job.submitted else self.watch.on_success

    def on_failure(self, job: Job) -> Disposal:
        """What becomes of it if it fails."""
        return KEEP if job.submitted else self.watch.on_failure


@dataclass
class Policy:
    """What of the configuration holds for every job, and may be changed while they run."""

    limits: Limits
    retry: Retry

    def longest_run_seconds(self) -> float:
        """What runs for longer, its wait for a converter apart, hangs: it is converted twice at most, where the first
        converter may have been spoilt by another document."""
        return 2 * self.limits.convert_seconds + TRANSFER_SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job went through: COMPLETED with its conversion and output, or SUPERSEDED, or FOLDED (state None)
    where the document holds the very bytes that were converted before."""

    state: State | None
    conversion: Conversion | None = None
    output: str = ""


class Pipeline:
    """Runs jobs; one instance serves all workers."""

    def __init__(
        self,
        jobs: JobTable,
        pool: ConverterPool,
        policy: Policy,
        cancellations: Cancellations,
        stopped: Callable[[], bool],
        clock: Callable[[], float],
        meter: Meter = UNMETERED,
    ) -> None:
        self._meter = meter
        self._jobs = jobs
        self._pool = pool
        self._policy = policy
        self._cancellations = cancellations
        self._stopped = stopped
        self._clock = clock

    def run(self, route: Route, job: Job) -> Outcome:
        """Take one job through. Its results are durable on return; its state is not yet recorded.

        Raises Cancelled where an operator has called it off, whatever else has come over it, unless its source has
        changed or is gone. Call `left` once its end is recorded.
        """
        try:
            return self._run(route, job)
        except (Cancelled, FatalError):
            raise
        except (SourceChanged, SourceVanished):
            self._cancellations.close(job.id)
            raise
        except Exception as error:
            self._close(job, error)
            raise

    def left(self, job: Job) -> None:
        """The job is no longer running."""
        self._cancellations.forget(job.id)

    def _close(self, job: Job, error: Exception | None = None) -> None:
        if not self._cancellations.close(job.id):
            raise Cancelled("an operator has cancelled it") from error

    def _run(self, route: Route, job: Job) -> Outcome:
        started_at = self._clock()
        self._refuse_too_large(job)
        documents = route.documents(job)
        with self._fetched(documents, job) as document:
            if route.on_success(job).action == "keep" and self._same_content(documents, job, document):
                self._close(job)
                return Outcome(None)
            conversion = self._convert(documents, job, document)
        self._close(job)
        if not self._jobs.is_current(job):
            return Outcome(State.SUPERSEDED)
        with self._timed(job, Stage.DELIVER):
            return self._deliver(route, job, conversion, started_at)

    @contextmanager
    def _fetched(self, documents: Documents, job: Job) -> Iterator[Fetched]:
        with ExitStack() as stack:
            with self._timed(job, Stage.FETCH):
                document = stack.enter_context(documents.fetch(job))
            self._meter.read(job.watch, document.size_bytes)
            yield document

    def _convert(self, source: Documents, job: Job, document: Fetched) -> Conversion:
        with self._pool.slot(job.rank, self._stopped, lambda: self._cancellations.wanted(job.id)) as slot:
            self._jobs.stage(job, Stage.CONVERT)
            try:
                with self._timed(job, Stage.CONVERT):
                    conversion = slot.convert(document.fd, source_name(job.source), self._policy.limits.convert_seconds)
            except DocumentError:
                source.verify(job, document)  # a document that changed under the converter's hands is not to blame
                raise
        source.verify(job, document)
        return conversion

    def _deliver(self, route: Route, job: Job, conversion: Conversion, started_at: float) -> Outcome:
        self._jobs.stage(job, Stage.DELIVER)
        files = result_files(job, conversion, route.watch.formats, started_at=started_at, finished_at=self._clock())
        name = output_name(job.source, route.sink.name_bytes)
        origin = Origin(job.source, job.version, lambda: route.documents(job).verify(job, None))
        output = route.sink.publish(name, files, origin)
        outdated = () if SIDECAR in files else self._sidecar_of_before(route.sink, job, name)
        route.sink.remove(name, (ERROR, *outdated), origin)
        return Outcome(State.COMPLETED, conversion, output)

    def _sidecar_of_before(self, sink: Sink, job: Job, name: str) -> tuple[str, ...]:
        """What was written while sidecars were wanted describes Markdown that is replaced now. Only what is ours: a
        watch without sidecars may have a file of somebody else there."""
        if not self._jobs.has_output(job):
            return ()
        before = sink.read(name, SIDECAR)
        return (SIDECAR,) if before is not None and named_source(before) == job.source else ()

    @contextmanager
    def _timed(self, job: Job, stage: Stage) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._meter.staged(job.watch, stage, time.monotonic() - began)

    def _refuse_too_large(self, job: Job) -> None:
        allowed = self._policy.limits.file_size_bytes
        if job.size_bytes > allowed:
            raise DocumentError(
                Kind.TOO_LARGE, f"the document has {job.size_bytes:,} bytes; limits.file_size allows {allowed:,}"
            )

    def _same_content(self, source: Documents, job: Job, document: Fetched) -> bool:
        """Whether only the file's identity changed (a chmod, a copy back from a backup) since it was converted."""
        if job.previous_version in (None, job.version):
            return False  # nothing to compare with, or a retry: somebody wants this very version converted again
        if not source.may_be_same(job.previous_version or "", job.version):
            return False
        before = self._jobs.converted_before(job)
        if before is None:
            return False
        same = sha256(document) == before
        source.verify(job, document)
        return same


def sha256(document: Fetched) -> str:
    """The digest of a fetched document, read with one reused buffer."""
    digest = hashlib.sha256()
    for piece in pieces(document.fd):
        digest.update(piece)
    return digest.hexdigest()

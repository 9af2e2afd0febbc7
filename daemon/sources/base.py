"""What a source is: where documents come from. One file in this package and one line in its REGISTRY add one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from daemon.faults import Fault, no_fault
from daemon.model import Candidate, Disposal, Job, State
from daemon.payload import Payloads
from daemon.s3.clients import Clients
from daemon.sources.claims import Claims

Takes = Callable[[bytes], bool]
PassOver = Callable[[bytes, str], None]
"""Hears of a path and of the rule, or of what else there is, by which it is not taken."""


@dataclass(frozen=True)
class Surroundings:
    """What all sources of a daemon share. `stopping` is set at a stop: what is being fetched is given up then.

    `fault` is called with a label at each step that a test may want to break. `silent` is of one watch alone: those of
    its folders that do not answer just now. `claims` are of names in buckets that documents are moved to.
    """

    payloads: Payloads
    clients: Clients
    stopping: threading.Event = field(default_factory=threading.Event)
    fault: Fault = no_fault
    silent: Collection[str] = ()
    claims: Claims = field(default_factory=Claims)

    @classmethod
    def for_looking(cls) -> Surroundings:
        """For commands that ask a source something and fetch nothing."""
        return cls(Payloads("", 0, 0), Clients(1))


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document ready to be read by a converter: an open descriptor, positioned anywhere, of `size_bytes`."""

    fd: int
    size_bytes: int


class Ledger(Protocol):
    """The side of the job table that a source sees. Safe to call from any thread."""

    def unknown(self, candidates: list[Candidate]) -> list[Candidate]:
        """Those candidates whose version is not the one last recorded for their path. Reads only."""
        ...

    def enqueue(self, candidates: list[Candidate]) -> int:
        """Record them as new jobs, durable on return; says how many were new. Older pending versions of the
        same paths become `superseded`."""
        ...

    def unfinished(self, sources: list[bytes]) -> set[bytes]:
        """Those of these documents that have a job which has not ended; all of them where that cannot be told."""
        ...


class Watcher(Protocol):
    """What a source tells the watch it belongs to. Safe to call from any thread."""

    def beat(self) -> None:
        """The source makes progress; a source that stops beating is shown as stalled."""
        ...

    def sick(self, error: Exception) -> None:
        """The source itself cannot be read (folder gone, permission, network)."""
        ...

    def well(self) -> None:
        """The source can be read again."""
        ...

    def note(self, text: str | None) -> None:
        """Something an operator should know that stops nothing; None takes it back."""
        ...

    def drained(self, left: int) -> None:
        """Everything that was there has been looked at; `left` files are not ready yet (still being written)."""
        ...

    def room(self) -> int:
        """How many more documents can be taken up now by who must not take more than can be run soon; 0 while the
        watch is paused."""
        ...

    def paused(self) -> bool:
        """Whether the watch is paused: no job begins until that is over."""
        ...

    def running(self) -> set[bytes]:
        """The documents whose jobs workers hold now."""
        ...


class Documents(Protocol):
    """Where the documents of jobs are fetched from, and disposed of. Errors are translated to those of
    `daemon.errors`; all methods may be called from any thread."""

    def fetch(self, job: Job) -> AbstractContextManager[Fetched]:
        """Open the document of a job, at `job.location` or its source path.

        Raises SourceVanished, SourceChanged (it is no longer `job.version`), DocumentError, TransientError, and
        EnvironmentProblem where what it lies on is away.
        """
        ...

    def recheck(self, source: bytes) -> None:
        """Look at this path again soon: it was found changed."""
        ...

    def may_be_same(self, earlier: str, later: str) -> bool:
        """Whether two different versions can hold the same bytes, so that only a digest decides."""
        ...

    def verify(self, job: Job, fetched: Fetched | None) -> None:
        """Raise SourceChanged or SourceVanished unless the source still holds `job.version`, and what was fetched, if
        it is still there, is that version whole."""
        ...

    def settled(self, job: Job, state: State) -> None:
        """The job has ended so, durably. Called once for each end, from the thread that brought it about; quick."""
        ...

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        """Delete or move the document of a finished job; for a move returns where it lies now.

        Idempotent: called again after a crash at any line, it finishes what was begun, whatever an earlier call was
        to do; to keep the document it brings back what was hidden, and raises SourceChanged. Acts only on the version
        the job converted. Raises SourceChanged where a newer version is there or is being written (nothing is
        lost and the newer one is found by discovery), NotYet until 5 s after the last change and while another
        document is being moved to its name, SourceVanished where somebody else removed it, TransientError on an error
        of the system, EnvironmentProblem where what it lies on, or is to be moved to, is away.
        """
        ...

    def has_begun(self, job: Job) -> bool:
        """Whether a disposal of this job has hidden its document: it must be finished, even if a newer version has
        taken its name. Raises EnvironmentProblem, TransientError."""
        ...


class Source(Documents, Protocol):
    """Where the documents of one watch come from: it finds them by itself."""

    def run(self, ledger: Ledger, watcher: Watcher, stopped: Callable[[], bool]) -> None:
        """Discover until `stopped()`, in the calling thread. Returns within 1 s of a stop."""
        ...

    def exists(self, source: bytes) -> bool:
        """Whether there is a document at this path now. TransientError where that cannot be told, EnvironmentProblem
        where the source itself is gone."""
        ...

    def vouch(self) -> None:
        """Raise EnvironmentProblem where what does not exist may be out of reach only; changes nothing.

        To be asked after the documents were looked for, so that what happened meanwhile is seen. A folder with nothing
        at all in it is not trusted: so looks the mount point of a disk that is not mounted, and a command that has only
        just begun has nothing else to tell it by.
        """
        ...

    def probe(self) -> None:
        """Raise EnvironmentProblem if the source as a whole cannot be read now."""
        ...

    def explain(self, source: bytes) -> Iterator[str]:
        """Sentences on why this path is or is not taken, for `why`; changes nothing."""
        ...

    def survey(self, pass_over: PassOver) -> Iterator[list[Candidate]]:
        """What is there now and would be taken, in batches, for `plan`; changes nothing.

        `pass_over` hears of what is not taken, and why. Raises EnvironmentProblem where the source cannot be looked
        through.
        """
        ...


def surveyed(takes: Takes, why: Callable[[bytes], str | None], pass_over: PassOver) -> Takes:
    """What decides for `Source.survey`: as `takes` does, and telling of what it does not take."""

    def takes_or_tells(source: bytes) -> bool:
        if takes(source):
            return True
        pass_over(source, why(source) or "")
        return False

    return takes_or_tells


def source_name(source: bytes) -> str:
    """The last part of a source path as text, for the extension it carries."""
    return os.fsdecode(source.rsplit(b"/", 1)[-1])

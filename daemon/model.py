"""The words of the domain as types. Imports nothing of the project but other words."""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon.words import Disposal as Disposal  # these are here as well, for all who speak of jobs
from daemon.words import Stage as Stage
from daemon.words import State as State
from daemon.words import display as display
from daemon.words import printable as printable

STEP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One version of one document as a source saw it.

    `source` is the path relative to the source, as bytes because names need not be UTF-8. `version` identifies
    the content in the source's own terms and is opaque to everybody else.
    """

    source: bytes
    version: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the job table as a worker needs it.

    `location` is where the document lies now if it is no longer at `source` (moved by a disposal), else None.
    `attempts` counts the attempts already finished. `interruptions` counts how often the daemon died while this
    job was being converted. `previous_version` is the last version of the document whose content is
    known, for sources whose version can change though the content does not. `batch` is the name of the batch it belongs
    to; a `submitted` document was handed in by a command and has no source but `location`.
    """

    id: int
    watch: str
    source: bytes
    version: str
    size_bytes: int
    priority: int
    attempts: int
    interruptions: int
    discovered_at: float
    location: bytes | None = None
    previous_version: str | None = None
    batch: str | None = None
    submitted: bool | int = False

    @property
    def rank(self) -> tuple[float, int]:
        """The order in which jobs are run, the lowest first: a step of priority is worth `STEP_SECONDS` of waiting, so
        that what is less urgent is not put off for ever."""
        return self.discovered_at - STEP_SECONDS * self.priority, self.id


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a converter made of a document, and how. `first_engine` is the one that was tried first."""

    markdown: bytes | memoryview
    sha256: str
    media_type: str
    engine: str
    engine_version: str
    pages: int | None = None
    title: str | None = None
    characters: int = 0
    warnings: tuple[str, ...] = field(default=())
    convert_seconds: float = 0.0
    first_engine: str = ""

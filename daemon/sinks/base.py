"""What a sink is: where results go. One file in this package and one line in its REGISTRY add one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from daemon.faults import Fault, no_fault
from daemon.s3.clients import Clients


@dataclass(frozen=True)
class Surroundings:
    """What all sinks of a daemon share. `uploads` lets so many results be on their way at once, over all workers.

    `fault` is called with a label at each step that a test may want to break. `silent` is of one watch alone: its
    folder does not answer just now.
    """

    clients: Clients
    uploads: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(1))
    fault: Fault = no_fault
    silent: bool = False


@dataclass(frozen=True)
class Origin:
    """What results are of, for sinks that can keep that beside them. `verify` raises SourceChanged or SourceVanished
    once the source holds another version; None where that does not matter."""

    source: bytes = b""
    version: str = ""
    verify: Callable[[], None] | None = None


UNKNOWN = Origin()
Content = bytes | memoryview


class Sink(Protocol):
    """Where the results of one watch go. Used by many threads at once.

    `name_bytes` is how long a name with the longest suffix may be; `remote` says that every call may take as long as a
    network does.
    Errors are translated: `TransientError` for what may be this document's fault, to be judged by `probe`.
    """

    name_bytes: int
    remote: bool

    def publish(self, name: str, files: Mapping[str, Content], origin: Origin = UNKNOWN) -> str:
        """Put `files` (suffix → content) at `name + suffix`, in the order given, the last one as commit mark.

        On return everything is durable, and no reader ever saw a part of a file. Replaces what was there; where other
        daemons may write to the same place, not what a newer version has put there meanwhile, but raises what
        `origin.verify` raises. Where two names may be one, raises DocumentError instead of replacing what names
        another document than `origin.source`. Returns the location of the last file as it is (but for bytes that are
        not UTF-8): whoever shows it to people makes it printable.
        """
        ...

    def remove(self, name: str, suffixes: tuple[str, ...], origin: Origin = UNKNOWN) -> None:
        """Remove results if they are there and not those of another document than `origin.source`. Durable on
        return."""
        ...

    def folds(self) -> bool:
        """Whether names that differ in case only are one here, as far as that can be told without writing."""
        ...

    def read(self, name: str, suffix: str) -> bytes | None:
        """What was published there; None where there is nothing. Raises TransientError and EnvironmentProblem."""
        ...

    def probe(self, size_bytes: int) -> None:
        """Write, sync and remove a canary of this size. Raises EnvironmentProblem if that fails."""
        ...

    def close(self) -> None:
        """At the end of a one-shot command: leave nothing of our own behind."""
        ...

    def sweep(self) -> None:
        """At start, and when a watch is changed: remove what an interrupted publish may have left behind (temporary
        files only), nothing of one that is under way."""
        ...

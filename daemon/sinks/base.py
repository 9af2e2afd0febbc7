"""What a sink is: where results go. One file in this package and one line in its REGISTRY add one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Sink(Protocol):
    """Where the results of one watch go. Used by many threads at once.

    Errors are translated: `TransientError` for what may be this document's fault, to be judged by `probe`.
    """

    def publish(self, name: str, files: Mapping[str, bytes]) -> str:
        """Put `files` (suffix → content) at `name + suffix`, in the order given, the last one as commit mark.

        On return everything is durable, and no reader ever saw a part of a file. Replaces what was there.
        Returns the location of the last file, for people.
        """
        ...

    def remove(self, name: str, suffixes: tuple[str, ...]) -> None:
        """Remove results if they are there. Durable on return."""
        ...

    def probe(self, size_bytes: int) -> None:
        """Write, sync and remove a canary of this size. Raises EnvironmentProblem if that fails."""
        ...

    def close(self) -> None:
        """At the end of a one-shot command: leave nothing of our own behind."""
        ...

    def sweep(self) -> None:
        """At start: remove what an interrupted publish may have left behind (temporary files only)."""
        ...

"""What a watch would do if it looked through its source now. Changes nothing, and keeps nothing a document.

The same rules as in earnest: the watch's own filter and the job table decide what is taken, `naming` where to.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from daemon.converters.formats import NO_DOCUMENTS
from daemon.errors import Kind
from daemon.model import Candidate
from daemon.naming import output_name
from daemon.sources.base import Source

NEW, CHANGED = "new", "changed"
MARKS_REMEMBERED = 100_000
COLLISIONS_REMEMBERED = 100
OUTPUT_SUFFIX = ".md"

Versions = Callable[[Sequence[bytes]], dict[bytes, str]]
"""The versions that are known of these documents."""


class Entry(NamedTuple):
    """A document that would be taken. `output` is below the sink; `fails` is what it is known to fail with."""

    news: str
    source: bytes
    size_bytes: int
    output: str
    fails: Kind | None


class Forecast:
    """What one watch would do: `entries`, gone through once, and what they add up to.

    `passed_over` and `failing` count by rule and by kind, with an example of each. `renamed` counts the outputs that
    are not called as their documents are. `folds` says that the sink takes names that differ in case only for one.
    """

    def __init__(
        self, source: Source, versions: Versions, *, name_bytes: int, file_size_bytes: int, folds: bool = False
    ) -> None:
        self._source = source
        self._versions = versions
        self._name_bytes = name_bytes
        self._file_size_bytes = file_size_bytes
        self._folds = folds
        self._marked: dict[str, bytes] = {}
        self.news: Counter[str] = Counter()
        self.known = self.renamed = self.size_bytes = 0
        self.passed_over: Counter[str] = Counter()
        self.failing: Counter[Kind] = Counter()
        self.examples: dict[str, bytes] = {}
        self.collisions: list[tuple[str, bytes, bytes]] = []

    def entries(self) -> Iterator[Entry]:
        """What would be taken. Raises EnvironmentProblem where the source cannot be looked through."""
        for batch in self._source.survey(self._pass_over):
            known = self._versions([candidate.source for candidate in batch]) if batch else {}
            for candidate in batch:
                version = known.get(candidate.source)
                if version == candidate.version:
                    self.known += 1
                    if self._folds:
                        self._look_for_collision(output_name(candidate.source, self._name_bytes), candidate.source)
                else:
                    yield self._entry(CHANGED if version else NEW, candidate)

    def _entry(self, news: str, candidate: Candidate) -> Entry:
        output = output_name(candidate.source, self._name_bytes)
        fails = self._fails(candidate)
        self.news[news] += 1
        self.size_bytes += candidate.size_bytes
        if fails:
            self.failing[fails] += 1
            self.examples.setdefault(fails, candidate.source)
        if output.encode() != candidate.source:
            self.renamed += 1
        if self._folds or output.encode() != candidate.source:
            self._look_for_collision(output, candidate.source)
        return Entry(news, candidate.source, candidate.size_bytes, output + OUTPUT_SUFFIX, fails)

    def _fails(self, candidate: Candidate) -> Kind | None:
        """What is sure, or as good as sure, without a look inside."""
        if candidate.size_bytes == 0:
            return Kind.EMPTY
        if candidate.size_bytes > self._file_size_bytes:
            return Kind.TOO_LARGE
        extension = os.path.splitext(candidate.source)[1]
        return Kind.UNSUPPORTED_FORMAT if extension.lower() in NO_DOCUMENTS else None

    def _look_for_collision(self, output: str, source: bytes) -> None:
        """Only names that are not those of their documents can be alike (see `naming`); where it folds, all can."""
        key = output.lower() if self._folds else output
        other = self._marked.get(key)
        if other is not None and other != source and len(self.collisions) < COLLISIONS_REMEMBERED:
            self.collisions.append((output, other, source))
        elif len(self._marked) < MARKS_REMEMBERED:
            self._marked[key] = source

    def _pass_over(self, source: bytes, rule: str) -> None:
        self.passed_over[rule] += 1
        self.examples.setdefault(rule, source)

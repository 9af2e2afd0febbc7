"""What lies in the sinks, judged as it appears: each Markdown and each sidecar must be all of one version."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.layout import Watch
from tests.chaos.model import SUBMITTED, Document, Model, Version
from tests.chaos.places import Stamp, is_hidden

ERROR = ".error.json"
MANIFEST = ".manifest.jsonl"


@dataclass
class Sink:
    """What lies in one sink: versions by document, and who has an error file. But for `newest` nothing is remembered
    of what is gone."""

    stamps: dict[str, Stamp] = field(default_factory=dict)
    markdown: dict[str, Version] = field(default_factory=dict)
    sidecar: dict[str, Version] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    """Of the Markdown by document, and what its sidecar says that it is."""
    promised_sha256: dict[str, str] = field(default_factory=dict)
    newest: dict[str, tuple[int, Stamp]] = field(default_factory=dict)
    """The number of the newest version that was seen of each result, by its name."""
    failed: set[str] = field(default_factory=set)

    def fits(self, name: str) -> bool:
        """Whether the Markdown of this document is what its sidecar says."""
        return self.sha256.get(name) == self.promised_sha256.get(name)

    def forget(self, name: str) -> None:
        """A file is gone."""
        stem, _, suffix = name.rpartition(".")
        if name.endswith(ERROR):
            self.failed.discard(name.removesuffix(ERROR))
        elif suffix == "md":
            self.markdown.pop(stem, None)
            self.sha256.pop(stem, None)
        elif suffix == "json":
            self.sidecar.pop(stem, None)
            self.promised_sha256.pop(stem, None)


def _was_written_later(stamp: Any, other: Any) -> bool:
    """Not if it was put back with its whole folder: it is as old as it was then. (Buckets tell whole seconds.)"""
    return bool(stamp != other and stamp[1] >= other[1])


class Outputs:
    """The sinks of all watches; `complain` is told of what must not be. Thread-safe."""

    def __init__(self, model: Model, complain: Callable[[str], None]) -> None:
        self._model = model
        self._complain = complain
        self._lock = threading.Lock()
        self._sinks: dict[str, Sink] = {}
        self.looks = 0

    def look(self, watch: Watch) -> Sink:
        """See what is new, and judge it."""
        with self._lock:
            seen = self._sinks.setdefault(watch.name, Sink())
            names = watch.sink.names()
            for name in [name for name in seen.stamps if name not in names]:
                self._gone(watch, seen, name)
            for name, stamp in names.items():
                if not is_hidden(name) and seen.stamps.get(name) != stamp:
                    self.looks += 1
                    seen.stamps[name] = stamp
                    self._judge(watch, seen, name)
            return seen

    def last(self, watch: Watch) -> Sink:
        """What was seen last."""
        with self._lock:
            return self._sinks.setdefault(watch.name, Sink())

    def _gone(self, watch: Watch, seen: Sink, name: str) -> None:
        """A file is not there. Results are replaced, never removed, but with the whole folder, which comes back; only
        error files are. Who has removed them all is told by what is missed in the end."""
        others, gone = watch.sink.names(), watch.sink.read(name) is None  # in this order: the folder may just come back
        del seen.stamps[name]  # what is there after all, or comes back, is judged anew
        if not gone:
            return
        seen.forget(name)
        if others and not name.endswith(ERROR):
            self._complain(f"{watch.name}: the result {name} has been removed")

    def _judge(self, watch: Watch, seen: Sink, name: str) -> None:
        stem, _, suffix = name.rpartition(".")
        if name.endswith(ERROR):
            stem = name.removesuffix(ERROR)
        document = self._model.find(watch.name, stem)
        content = watch.sink.read(name)
        if content is None:
            self._gone(watch, seen, name)
        elif name.endswith(MANIFEST):
            self._manifest(watch, name, content)
        elif document is None or suffix not in ("md", "json"):
            self._complain(f"{watch.name}: nothing makes a {name}")
        elif name.endswith(ERROR):
            if self._parsed(watch, name, content) is not None:
                seen.failed.add(stem)
        elif suffix == "md":
            self._markdown(watch, seen, document, content)
        else:
            self._sidecar(watch, seen, document, content)

    def _markdown(self, watch: Watch, seen: Sink, document: Document, content: bytes) -> None:
        version = document.of_markdown(content)
        if version is None:
            shown = f"{len(content)} bytes: {content[:60]!r}…{content[-60:]!r}"
            self._complain(f"{watch.name}: {document.name}.md is not the whole of any version ({shown})")
        else:
            seen.markdown[document.name] = version
            seen.sha256[document.name] = hashlib.sha256(content).hexdigest()
            self._compare(watch, seen, document, f"{document.name}.md", version)

    def _sidecar(self, watch: Watch, seen: Sink, document: Document, content: bytes) -> None:
        parsed = self._parsed(watch, f"{document.name}.json", content)
        if parsed is None:
            return
        version = document.of_source(parsed.get("sha256", ""))
        if version is None:
            self._complain(f"{watch.name}: {document.name}.json is of a version that never existed whole")
        else:
            seen.sidecar[document.name] = version
            seen.promised_sha256[document.name] = parsed.get("markdown_sha256", "")
            self._compare(watch, seen, document, f"{document.name}.json", version)

    def _compare(self, watch: Watch, seen: Sink, document: Document, name: str, version: Version) -> None:
        """With what was seen before, and with what lies beside it.

        A sidecar and a Markdown of different versions are a newer one under way. Of the same one they fit, however
        often it was converted, if its engine makes the same of it each time.
        """
        number, stamp = seen.newest.get(name, (0, ()))
        if version.number >= number:
            seen.newest[name] = version.number, seen.stamps[name]
        elif _was_written_later(seen.stamps[name], stamp):
            self._complain(f"{watch.name}: {name} of version {number} was replaced by that of {version.number}")
        alike = seen.markdown.get(document.name) is seen.sidecar.get(document.name)
        if alike and document.kind == "txt" and not seen.fits(document.name):
            self._complain(f"{watch.name}: {document.name}.md is not what its sidecar says")

    def _manifest(self, watch: Watch, name: str, content: bytes) -> None:
        """Of a batch that was handed in, or of a folder; each of its lines is whole."""
        folder = f"{name.removesuffix(MANIFEST)}/"
        beginnings = (f"{SUBMITTED}{folder}", *((folder,) if watch.batched else ()))
        if not any(document.name.startswith(beginnings) for document in self._model.of(watch.name)):
            self._complain(f"{watch.name}: nothing makes a {name}")
        for line in content.splitlines():
            self._parsed(watch, name, line)

    def _parsed(self, watch: Watch, name: str, content: bytes) -> dict[str, Any] | None:
        try:
            parsed: dict[str, Any] = json.loads(content)
        except ValueError:
            self._complain(f"{watch.name}: {name} is not whole: {content[:100]!r}")
            return None
        return parsed

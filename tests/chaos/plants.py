"""Bugs to be planted in the daemon under test, to show that the campaign finds what it is there for."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEAK_BYTES = 512 << 10


@dataclass(frozen=True)
class Plant:
    """A bug: what it is, an expression that only what is found of it fits, and what puts it into this process."""

    what: str
    finding: str
    apply: Callable[[], None]

    def found_among(self, findings: Iterable[str]) -> str | None:
        """The first that is of this bug, and not of something else that went wrong."""
        return next((text for text in findings if re.search(self.finding, text)), None)


def _no_sync() -> None:
    from daemon.sinks import folder

    def write(path: bytes, chunks: Any, *, dir_fd: int | None = None) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=dir_fd)
        with open(fd, "wb") as file:
            file.writelines(chunks)

    vars(folder)["write_durably"] = write


def _no_folder_sync() -> None:
    from daemon.sinks import folder

    vars(folder)["fsync_directory"] = lambda path, **_: None


def _dispose_first() -> None:
    from daemon.errors import NotYet, SourceChanged, SourceVanished, TransientError
    from daemon.worker import Worker

    succeed = Worker._succeed

    def succeed_late(self: Any, route: Any, job: Any, outcome: Any) -> bool:
        if outcome.conversion is not None and route.on_success(job).action == "delete":
            with suppress(NotYet, SourceChanged, SourceVanished, TransientError):
                route.source.dispose(job, route.on_success(job))
        return succeed(self, route, job, outcome)

    Worker._succeed = succeed_late  # type: ignore[method-assign]


def _no_rescan() -> None:
    from daemon.sources.discovery import FolderDiscovery

    FolderDiscovery._advance = lambda self, scan: False  # type: ignore[method-assign]


def _in_place() -> None:
    from daemon.sinks.folder import FolderSink

    def publish(self: Any, name: Any, files: Any, origin: Any = None) -> str:
        base = self._path(name)
        with self._translated(base, 0):
            for suffix, content in files.items():
                with open(base + os.fsencode(suffix), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
        return os.fsdecode(base + os.fsencode(list(files)[-1]))

    FolderSink.publish = publish  # type: ignore[method-assign]


def _forget_interruptions() -> None:
    from daemon.jobs import JobTable

    recover = JobTable.recover

    def forgetful(self: Any) -> int:
        number = recover(self)
        self._writer.call(lambda db: db.execute("UPDATE jobs SET interruptions = 0 WHERE interruptions > 0"))
        return number

    JobTable.recover = forgetful  # type: ignore[method-assign]


def _complete_all_versions() -> None:
    from daemon.jobs import ending

    complete = ending.complete

    def complete_all(db: Any, job: Any, values: Any) -> bool:
        complete(db, job, values)
        db.execute(
            """UPDATE jobs SET state = 'completed', stage = NULL, finished_at = ? WHERE source = ?
               AND watch = (SELECT watch FROM jobs WHERE id = ?)""",
            (values[1], job.source, job.id),
        )
        return True

    ending.complete = complete_all


def _complete_nothing() -> None:
    from daemon.jobs import ending

    complete = ending.complete

    def complete_some(db: Any, job: Any, values: Any) -> bool:
        return True if job.id % 7 == 0 else complete(db, job, values)

    ending.complete = complete_some


def _no_verification() -> None:
    from daemon.sources.folder import FolderSource

    FolderSource.verify = lambda self, job, fetched: None  # type: ignore[method-assign]


def _leave_temporaries() -> None:
    from daemon.sinks.folder import FolderSink

    FolderSink.sweep = lambda self: None  # type: ignore[method-assign]


def _no_backoff() -> None:
    from daemon.dispatch import Dispatcher

    give_back = Dispatcher.give_back
    Dispatcher.give_back = lambda self, job, not_before=0.0: give_back(self, job)  # type: ignore[method-assign]


def _forget_retry() -> None:
    from daemon.dispatch import Dispatcher

    give_back: Any = Dispatcher.give_back

    def forgetful(self: Any, job: Any, not_before: float = 0.0) -> None:
        if not_before:
            self.done(job)
        else:
            give_back(self, job)

    Dispatcher.give_back = forgetful  # type: ignore[method-assign]


def _any_version() -> None:
    from daemon.s3 import download

    original: Any = download._Object.__init__

    def careless(self: Any, *args: Any) -> None:
        original(self, *args)
        self._conditions = {}

    setattr(download._Object, "__init__", careless)  # noqa: B010
    vars(download)["bare_etag"] = lambda etag: ""


def _delete_instead_of_move() -> None:
    from daemon.sources.disposer import Disposer

    def move(self: Any, folder: int, place: Any, job: Any, disposal: Any) -> bytes:
        os.unlink(place.private, dir_fd=folder)
        return os.path.join(os.fsencode(disposal.target), job.source)

    Disposer._move = move  # type: ignore[method-assign]


def _leak_descriptors() -> None:
    from daemon.sources.folder import FolderSource

    status: Any = FolderSource._status

    def leaky(self: Any, job: Any) -> Any:
        os.open(self._root.path, os.O_RDONLY | os.O_CLOEXEC)
        return status(self, job)

    FolderSource._status = leaky  # type: ignore[method-assign]


def _leak_memory() -> None:
    from daemon.endings import Endings

    settle: Any = Endings.settle
    kept: list[bytes] = []

    def hoarding(self: Any, route: Any, job: Any, state: Any) -> None:
        kept.append(os.urandom(LEAK_BYTES))
        settle(self, route, job, state)

    Endings.settle = hoarding  # type: ignore[method-assign]


def _convert_again() -> None:
    from daemon.pipeline import Pipeline

    Pipeline._same_content = lambda *_: False  # type: ignore[method-assign]


def _other_digest() -> None:
    from daemon import results

    dump: Any = results._dump

    def careless(content: dict[str, Any]) -> bytes:
        digest = {"markdown_sha256": content["sha256"]} if "markdown_sha256" in content else {}
        return bytes(dump(content | digest))

    results._dump = careless


def _keep_parts() -> None:
    from daemon.s3 import writing

    vars(writing)["STALE_SECONDS"] = float("inf")


def _delete_failed() -> None:
    from daemon.pipeline import DELETE, Route

    on_failure: Any = Route.on_failure
    Route.on_failure = lambda self, job: (  # type: ignore[method-assign]
        disposal if (disposal := on_failure(self, job)).action == "keep" else DELETE
    )


def _lose_events() -> None:
    from daemon.outbox import Outbox

    record: Any = Outbox.record

    def forgetful(self: Any, db: Any, payload: str | None) -> None:
        if payload is None or hash(payload) % 5:
            record(self, db, payload)

    Outbox.record = forgetful  # type: ignore[method-assign]


def _no_manifest() -> None:
    from daemon.manifests import Manifests

    Manifests.look = lambda self, stopped: None  # type: ignore[method-assign]


def _short_manifest() -> None:
    from daemon import batches

    documents: Any = batches.documents
    vars(batches)["documents"] = lambda rows, batch: list(documents(rows, batch))[:-1]


def _ignore_pause() -> None:
    from daemon.dispatch import Dispatcher
    from daemon.roster import OPERATOR

    pause: Any = Dispatcher.pause
    Dispatcher.pause = lambda self, watch, reason: (  # type: ignore[method-assign]
        None if reason == OPERATOR else pause(self, watch, reason)
    )


def _obey_anything() -> None:
    from daemon.reload import Reload

    reload: Any = Reload.__call__
    setattr(Reload, "__call__", lambda self: reload(self) or self._roster.serve(()))  # noqa: B010


def _empty_sink() -> None:
    (sink,) = (Path(sink) for sink in os.environ["CHAOS_SINKS"].split(os.pathsep) if sink.endswith("/delete/out"))
    emptied = tempfile.mkdtemp(dir=sink.parent)
    with suppress(FileNotFoundError):
        sink.rename(emptied)  # all of it at once: nobody sees some results without the others
    sink.mkdir(exist_ok=True)
    shutil.rmtree(emptied)


PLANTS: dict[str, Plant] = {
    "no-sync": Plant("results are renamed into place without a sync", "before it was synced", _no_sync),
    "no-folder-sync": Plant("the folder of a result is not synced", "before its folder was synced", _no_folder_sync),
    "dispose-first": Plant(
        "a source is deleted before its job is committed",
        "is disposed of while the job is|the source .* is gone",
        _dispose_first,
    ),
    "no-rescan": Plant(
        "a start follows the news but scans nothing", "has no job|job is missing|there is no result of", _no_rescan
    ),
    "in-place": Plant("results are written where they are read", "opened for writing at its final place", _in_place),
    "forget-interruptions": Plant(
        "a start forgets how often a document killed the daemon", "has killed the daemon", _forget_interruptions
    ),
    "complete-all": Plant(
        "a completion changes every job of the document",
        r"was \w+ and is now|is said to be|have both converted|there is no result of",
        _complete_all_versions,
    ),
    "complete-nothing": Plant(
        "some completions change no row, and nobody asks", "is said to be completed", _complete_nothing
    ),
    "no-verification": Plant(
        "what has changed while it was converted is published",
        "is not the whole of any version|never existed whole",
        _no_verification,
    ),
    "leave-temporaries": Plant("what an interrupted publish leaves is never removed", "^left by", _leave_temporaries),
    "no-backoff": Plant("a failed attempt is repeated at once", "began before its time", _no_backoff),
    "forget-retry": Plant("a failed attempt is never repeated", "never came to its end", _forget_retry),
    "any-version": Plant(
        "objects are fetched in whatever version is there",
        "is not the whole of any version|never existed whole",
        _any_version,
    ),
    "delete-moved": Plant(
        "what is to be moved is deleted", "where it should have been moved to", _delete_instead_of_move
    ),
    "lose-events": Plant("of some ends of jobs nobody is told", "nobody was told", _lose_events),
    "leak-descriptors": Plant("each look at a document leaves a descriptor open", "descriptors", _leak_descriptors),
    "leak-memory": Plant("of each job that has ended half a megabyte is kept", " MiB$", _leak_memory),
    "convert-again": Plant(
        "what only looks changed is converted again", "have both converted|converted again", _convert_again
    ),
    "other-digest": Plant(
        "a sidecar has the digest of something else than its Markdown", "is not what its sidecar says", _other_digest
    ),
    "keep-parts": Plant(
        "uploads in parts that were broken off are kept for ever", "uploads in parts are not given up", _keep_parts
    ),
    "delete-failed": Plant(
        "what is to be moved when it fails is deleted", "of a watch that keeps|its job has not failed", _delete_failed
    ),
    "no-manifest": Plant("no batch gets its manifest", "waits for its manifest", _no_manifest),
    "short-manifest": Plant(
        "the last document of a batch is not in its manifest", "manifest of .* lacks", _short_manifest
    ),
    "ignore-pause": Plant("an operator's pause is written down and not heeded", "was found while", _ignore_pause),
    "obey-anything": Plant(
        "a bad configuration ends all watches", "not served any more after a bad configuration", _obey_anything
    ),
    "empty-sink": Plant(
        "a start removes all results of a watch", "is gone without its result|there is no result of", _empty_sink
    ),
}

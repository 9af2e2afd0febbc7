"""A folder as the source of documents."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from daemon.errors import EnvironmentProblem, Kind, SourceChanged, SourceVanished, TransientError
from daemon.faults import Fault, no_fault
from daemon.files import NotRegularFile, RootFolder, folder_beneath, open_regular
from daemon.model import Candidate, Disposal, Job, State, display
from daemon.sources.base import Fetched, Ledger, PassOver, Surroundings, Watcher, surveyed
from daemon.sources.discovery import Filter, FolderDiscovery, Intervals
from daemon.sources.disposer import Disposer, Place
from daemon.sources.readiness import Readiness, Ready
from daemon.sources.scan import Tree, candidate
from daemon.sources.targets import Targets
from daemon.sources.version import file_version, may_be_copy, same_but_for_identity
from daemon.sources.waiting import Rechecks

if TYPE_CHECKING:
    from daemon.config import Watch


class FolderSource:
    """The documents below one folder. `run` belongs to one thread; all else may be called from any.

    `root` and `targets`, to which documents are to be moved, are absolute paths; `silent` are those of them that do not
    answer just now. `fault` is called with a label before each step of a disposal, for tests.
    """

    def __init__(
        self,
        root: str,
        wanted: Filter,
        *,
        settle_seconds: float = 0.02,
        poll_interval_seconds: float = 30.0,
        rescan_interval_seconds: float = 600.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        fault: Fault = no_fault,
        targets: Collection[str] = (),
        silent: Collection[str] = (),
    ) -> None:
        self._root = RootFolder(os.fsencode(root), silent=root in silent)
        self._targets = Targets(map(os.fsencode, targets), monotonic, silent=[*map(os.fsencode, silent)])
        self._wanted = wanted
        self._intervals = Intervals(poll_interval_seconds, rescan_interval_seconds)
        self._clock = clock
        self._monotonic = monotonic
        self._readiness = Readiness(self._root.path, settle_seconds, clock, monotonic)
        self._rechecks = Rechecks()
        self._disposer = Disposer(self._root, self._targets, self._readiness, self.recheck, monotonic, fault)

    @classmethod
    def for_watch(cls, watch: Watch, surroundings: Surroundings) -> FolderSource:
        """The source that a watch configures."""
        from daemon.globs import Filter as Globs

        return cls(
            watch.source,
            Globs(watch.include, watch.exclude),
            settle_seconds=watch.settle_seconds,
            poll_interval_seconds=watch.poll_interval_seconds,
            rescan_interval_seconds=watch.rescan_interval_seconds,
            fault=surroundings.fault,
            targets=[end.target for end in (watch.on_success, watch.on_failure) if end.action == "move"],
            silent=surroundings.silent,
        )

    def run(self, ledger: Ledger, watcher: Watcher, stopped: Callable[[], bool]) -> None:
        self._targets.get_to_know()
        FolderDiscovery(
            self._root,
            self._wanted,
            self._readiness,
            self._intervals,
            self._rechecks,
            ledger,
            watcher,
            stopped,
            self._clock,
            self._monotonic,
        ).run()

    def recheck(self, source: bytes) -> None:
        self._rechecks.add(source)

    def may_be_same(self, earlier: str, later: str) -> bool:
        return same_but_for_identity(earlier, later)

    @contextmanager
    def fetch(self, job: Job) -> Iterator[Fetched]:
        fd = self._open(job)
        try:
            status = os.fstat(fd)
            if not _is_version(job, status):
                raise SourceChanged("the document has changed since it was queued")
            yield Fetched(fd, status.st_size)
        finally:
            os.close(fd)

    def verify(self, job: Job, fetched: Fetched | None) -> None:
        # That somebody has opened it for writing is no reason to drop the result: until they change something, what
        # was fetched is the version of the job, whole. The change itself is another version.
        status = self._status(job)
        if status is None:
            raise SourceVanished("the document was removed while it was converted")
        whole = fetched is None or _is_version(job, os.fstat(fetched.fd))
        if not (whole and _is_version(job, status)):
            raise SourceChanged("the document changed while it was converted")

    def settled(self, job: Job, state: State) -> None:
        pass  # nobody else waits for it

    def exists(self, source: bytes) -> bool:
        *folders, name = source.split(b"/")
        try:
            with folder_beneath(self._root.path, folders) as folder:
                return candidate(source, os.lstat(name, dir_fd=folder)) is not None
        except (FileNotFoundError, NotADirectoryError):
            self._root.look()
            return False
        except OSError as error:
            raise _unreadable(error) from error

    def vouch(self) -> None:
        self._root.look()
        if self._is_empty():
            raise EnvironmentProblem(
                f"the folder {display(self._root.path)} is empty, as one is whose disk is not mounted",
                "Mount its disk; if its documents are gone for good, put any file into it, a hidden one will do.",
            )

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        return self._disposer.dispose(job, disposal)

    def has_begun(self, job: Job) -> bool:
        return self._disposer.has_begun(job)

    def probe(self) -> None:
        self._root.check()
        self._targets.probe()
        self._is_empty()

    def _is_empty(self) -> bool:
        try:
            with os.scandir(self._root.path) as entries:
                return next(entries, None) is None
        except OSError as error:
            raise EnvironmentProblem(
                f"the folder {display(self._root.path)} cannot be read: {error.strerror}",
                "Mend its permissions; convertd goes on by itself.",
            ) from error

    def explain(self, source: bytes) -> Iterator[str]:
        rule = self._wanted.why(source)
        if rule is not None:
            yield f"not taken: {rule}"
            return
        try:
            there = self.exists(source)
        except (TransientError, EnvironmentProblem) as error:
            yield f"not taken: {error.message}"
            return
        if not there:
            yield "not there now, or no regular file (folders, links, FIFOs and devices are never taken)"
            return
        verdict = self._readiness.examine(source)
        if verdict is None or isinstance(verdict, Ready):
            yield "taken by this watch"
        else:
            yield f"waits: {verdict.reason}"

    def survey(self, pass_over: PassOver) -> Iterator[list[Candidate]]:
        takes = surveyed(self._wanted.takes, self._wanted.why, pass_over)
        tree = Tree(self._root.path, takes, self._clock)
        try:
            yield from tree.walk()
            for folder, error in tree.unreadable.items():
                pass_over(folder + b"/", f"the folder cannot be read: {error}")
        except OSError as error:
            raise EnvironmentProblem(
                f"the folder {display(self._root.path)} cannot be read: {error.strerror}",
                "Make it, mount its disk or mend its permissions: convertd doctor tells more.",
            ) from error

    def _open(self, job: Job) -> int:
        """Raises the errors of `fetch`."""
        for _ in range(2):
            try:
                with Place(self._root.path, job).folder() as folder:
                    return open_regular(Place(self._root.path, job).name, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                self._check_around(job)
                if not self._disposer.undo(job):
                    break
            except NotRegularFile:
                break
            except OSError as error:
                raise _unreadable(error) from error
        raise SourceVanished("the document is no longer there")

    def _check_around(self, job: Job) -> None:
        """Raise EnvironmentProblem where what lies around the document is not there either."""
        self._root.check()
        self._targets.check_around(job.location, to_read=True)

    def _status(self, job: Job) -> os.stat_result | None:
        place = Place(self._root.path, job)
        try:
            with place.folder() as folder:
                return os.lstat(place.name, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            self._check_around(job)
            return None
        except OSError as error:
            raise _unreadable(error) from error


def _is_version(job: Job, status: os.stat_result) -> bool:
    version = file_version(status)
    return version == job.version if job.location is None else may_be_copy(version, job.version)


def _unreadable(error: OSError) -> TransientError:
    return TransientError(Kind.UNREADABLE, f"the document cannot be read: {error.strerror}")

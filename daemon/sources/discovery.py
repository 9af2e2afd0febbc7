"""Finds the files of a folder: watches it, scans it, waits for files to be ready and hands them to the ledger."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.errors import EnvironmentProblem
from daemon.files import RootFolder, is_network_path
from daemon.model import Candidate, display
from daemon.sources.base import Ledger, Watcher
from daemon.sources.changes import CannotWatch, Changes, WatchLost, links_to_folders
from daemon.sources.readiness import Readiness, Ready, Unready
from daemon.sources.scan import BATCH, Tree, candidate
from daemon.sources.waiting import Rechecks, Waiting

LONGEST_WAIT_SECONDS = 0.25
QUIET_WAITS = 4
"""Where there are no news a round waits so often before it looks around: looking costs more than waiting."""
RETRY_SECONDS = 1.0
FOLDER_CHECK_SECONDS = 3.0
POLLED_FOLDER_CHECK_SECONDS = 1.0
OVERFLOW_PATHS = 4096
RESCAN_SHARE = 20  # scanning takes at most one part in so many of the time
CHECK_SHARE = 50


class Filter(Protocol):
    """Which paths are wanted (daemon.globs)."""

    def takes(self, source: bytes) -> bool: ...

    def why(self, source: bytes) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often a folder is scanned: `poll_seconds` where the kernel reports nothing, else `rescan_seconds`."""

    poll_seconds: float
    rescan_seconds: float


class FolderDiscovery:
    """One run of a folder source, in one thread.

    It goes in rounds: arm the watch, scan everything, then follow the news until the next full scan is due, the watch
    breaks or the folder is replaced. As every round begins with a full scan after arming, none of these loses a file.
    """

    def __init__(
        self,
        root: RootFolder,
        wanted: Filter,
        readiness: Readiness,
        intervals: Intervals,
        rechecks: Rechecks,
        ledger: Ledger,
        watcher: Watcher,
        stopped: Callable[[], bool],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._root = root
        self._wanted = wanted
        self._readiness = readiness
        self._intervals = intervals
        self._rechecks = rechecks
        self._ledger = ledger
        self._watcher = watcher
        self._stopped = stopped
        self._clock = clock
        self._monotonic = monotonic
        self._waiting = Waiting(monotonic)
        self._sick = False

    def run(self) -> None:
        """Discover until stopped."""
        while not self._stopped():
            self._watcher.beat()
            try:
                self._round()
            except EnvironmentProblem as problem:
                self._fall_ill(problem)
            except OSError as error:
                self._fall_ill(
                    EnvironmentProblem(f"the folder {display(self._root.path)} cannot be read: {error.strerror}")
                )

    def _fall_ill(self, problem: EnvironmentProblem) -> None:
        self._sick = True
        self._watcher.sick(problem)
        until = self._monotonic() + RETRY_SECONDS
        while not self._stopped() and (left := until - self._monotonic()) > 0:
            time.sleep(min(left, LONGEST_WAIT_SECONDS))

    # -- a round -----------------------------------------------------------------------------------------------

    def _round(self) -> None:
        identity = self._identity()
        watch = self._arm()
        tree = Tree(self._root.path, self._wanted.takes, self._clock, watch.entering)
        pace = Pace(self._intervals, watch, self._monotonic)
        scan: Iterator[list[Candidate]] | None = tree.walk()
        quiet = False
        try:
            while not self._stopped() and not pace.over() and self._identity() == identity:
                self._watcher.beat()
                if scan is not None and not self._advance(scan):
                    scan = None
                    pace.scanned()
                    self._recover(watch, tree)
                paths = self._news(watch, pace, QUIET_WAITS if quiet else 1) | self._rechecks.take()
                self._look_at(tree, paths)
                self._judge(self._waiting.take_due(BATCH))
                if pace.check_is_due():
                    self._check_folders(tree)
                    pace.checked()
                if scan is None:
                    self._rechecks.report(self._watcher, len(self._waiting))
                    quiet = not paths
        finally:
            watch.close()

    def _identity(self) -> tuple[int, int]:
        status = self._root.check()
        return status.st_dev, status.st_ino

    def _arm(self) -> Watch:
        self._readiness.network = is_network_path(self._root.path)
        if self._readiness.network:
            return Watch(None, network=True)
        link = links_to_folders(self._root.path, self._stopped)
        if link is not None:
            return Watch(None, f"{display(link)} is a symbolic link to a folder; remove it")
        try:
            return Watch(Changes(self._root.path))
        except CannotWatch as obstacle:
            return Watch(None, str(obstacle))

    def _recover(self, watch: Watch, tree: Tree) -> None:
        """The whole folder has been looked at."""
        if self._sick:
            self._sick = False
            self._watcher.well()
        notes = [f"changes are noticed late: {watch.obstacle}"] if watch.obstacle else []
        for folder, error in list(tree.unreadable.items())[:1]:
            others = f" and {len(tree.unreadable) - 1} more folders" if len(tree.unreadable) > 1 else ""
            notes.append(f"{display(folder)}{others} cannot be read: {error}")
        self._watcher.note("; ".join(notes) or None)

    def _news(self, watch: Watch, pace: Pace, waits: int) -> set[bytes]:
        """What has changed; waits for it, but not past the time when something else is due."""
        for _ in range(waits):
            seconds = max(0.0, min(LONGEST_WAIT_SECONDS, pace.seconds_left(), self._waiting.due_in_seconds()))
            paths = self._listen(watch, pace, seconds)
            due = seconds < LONGEST_WAIT_SECONDS
            if paths or due or watch.changes is None or self._rechecks.wanted() or self._stopped():
                return paths
        return set()

    def _listen(self, watch: Watch, pace: Pace, seconds: float) -> set[bytes]:
        if watch.changes is None:
            self._rechecks.wait(seconds)
            return set()
        try:
            paths = watch.changes.wait(seconds)
        except WatchLost:
            watch.close()
            pace.hasten()
            return set()
        if len(paths) >= OVERFLOW_PATHS:
            pace.hasten()
        return paths

    # -- files -------------------------------------------------------------------------------------------------

    def _advance(self, scan: Iterable[list[Candidate]]) -> bool:
        """Go on with a scan for a moment; False when it is through."""
        until = self._monotonic() + LONGEST_WAIT_SECONDS
        for batch in scan:
            self._offer(batch)
            if self._stopped() or self._monotonic() >= until:
                return True
        return False

    def _check_folders(self, tree: Tree) -> None:
        for folder in tree.changed():
            for batch in tree.walk(folder, known=False):
                self._offer(batch)

    def _look_at(self, tree: Tree, paths: set[bytes]) -> None:
        """Files and folders that somebody said have changed."""
        files: list[Candidate] = []
        for path in sorted(paths):
            try:
                status = os.lstat(os.path.join(self._root.path, path))
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode):
                if not any(part.startswith(b".") for part in path.split(b"/")):
                    self._walk(tree, path)
            elif self._wanted.takes(path) and (found := candidate(path, status)) is not None:
                files.append(found[1])
        for start in range(0, len(files), BATCH):
            self._offer(files[start : start + BATCH])

    def _walk(self, tree: Tree, folder: bytes) -> None:
        for batch in tree.walk(folder):
            self._offer(batch)
            if self._stopped():
                return

    def _offer(self, batch: list[Candidate]) -> None:
        """Take those that are new and ready; the new that are not ready wait."""
        self._watcher.beat()
        fresh = []
        for found in batch:
            if found.source in self._waiting:
                self._waiting.hurry(found.source)
            else:
                fresh.append(found)
        unknown = self._ledger.unknown(fresh) if fresh else []
        self._judge([(found.source, None) for found in unknown])

    def _judge(self, files: Sequence[tuple[bytes, Unready | None]]) -> None:
        ready = []
        for source, before in files:
            verdict = self._readiness.examine(source, before)
            if isinstance(verdict, Ready):
                ready.append(Candidate(source, verdict.version, verdict.size_bytes))
            elif verdict is not None:
                self._waiting.put(source, verdict)
        if ready:
            self._ledger.enqueue(ready)


class Watch:
    """How a round learns of changes: by the kernel's news, or, where there are none, by looking again.

    `obstacle` says why there are none although there could be.
    """

    def __init__(self, changes: Changes | None, obstacle: str = "", *, network: bool = False) -> None:
        self.changes = changes
        self.obstacle = obstacle
        self.network = network

    def entering(self, folder: bytes) -> None:
        """A folder is about to be listed."""
        if self.changes is not None:
            self.changes.entering(folder)

    def close(self) -> None:
        """No more news."""
        if self.changes is not None:
            self.changes.close()
            self.changes = None


class Pace:
    """When a round checks its folders and when it ends, so that looking takes a small share of the time only."""

    def __init__(self, intervals: Intervals, watch: Watch, monotonic: Callable[[], float]) -> None:
        self._watch = watch
        self._monotonic = monotonic
        self._interval_seconds = intervals.rescan_seconds if watch.changes else intervals.poll_seconds
        self._started = monotonic()
        self._scan_seconds: float | None = None
        self._hasty = False
        self._ends = self._next_check = float("inf")
        self._check_due = 0.0

    def scanned(self) -> None:
        """The scan of the round is through."""
        now = self._monotonic()
        self._scan_seconds = now - self._started
        self._ends = now + max(self._interval_seconds, RESCAN_SHARE * self._scan_seconds)
        self._set_check(0.0)
        if self._hasty:
            self.hasten()

    def hasten(self) -> None:
        """News have been lost: end the round as soon as the last scan is long enough ago."""
        self._hasty = True
        if self._scan_seconds is not None:
            self._ends = min(self._ends, self._started + (1 + RESCAN_SHARE) * self._scan_seconds)
            self._set_check(0.0)

    def over(self) -> bool:
        return self._monotonic() >= self._ends

    def check_is_due(self) -> bool:
        self._check_due = self._monotonic()
        return self._check_due >= self._next_check

    def checked(self) -> None:
        self._set_check(self._monotonic() - self._check_due)

    def seconds_left(self) -> float:
        """Until the next thing is due; none at all while the scan is running."""
        if self._scan_seconds is None:
            return 0.0
        return min(self._ends, self._next_check) - self._monotonic()

    def _set_check(self, took_seconds: float) -> None:
        if self._watch.network:
            return
        seconds = FOLDER_CHECK_SECONDS if self._watch.changes else POLLED_FOLDER_CHECK_SECONDS
        self._next_check = self._monotonic() + max(seconds, CHECK_SHARE * took_seconds)

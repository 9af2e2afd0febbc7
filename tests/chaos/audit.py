"""Looks over the daemon's shoulder, in its own process: what no reader of the sink can see.

Written to the journal as `violations`: a result that is renamed into place before it was synced, or opened for writing
at its final place; a job that is completed before the folder of its result was synced; a source that is disposed of
before its job has ended, durably; an attempt that begins before its time; a job that is completed in words only.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tests.chaos.hooks import Clock, Journal

BACKOFF_SECONDS = 0.4
"""What the campaign configures."""
Inode = tuple[int, int]
Content = tuple[int, int, int, int]
"""Of a file, as long as nobody writes it again: its inode, its time and its size."""
ENDED = ("completed", "failed")


def install(journal: Journal, clock: Clock, sinks: Sequence[bytes]) -> None:
    """From now on, in this process. To be called after whatever else replaces parts of the daemon."""
    syncs = Syncs(journal, [sink.rstrip(b"/") + b"/" for sink in sinks])
    sys.addaudithook(syncs.see)
    _watch_syncs(syncs)
    _watch_jobs(journal, syncs, Waits(journal, clock))
    _watch_disposals(journal)


class Syncs:
    """What has been synced, and what has been renamed into place since its folder was."""

    def __init__(self, journal: Journal, sinks: Sequence[bytes]) -> None:
        self._journal = journal
        self._sinks = sinks
        self._lock = threading.RLock()
        self._synced: set[Content] = set()
        self._unsafe: dict[Inode, set[bytes]] = {}

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python tells of what is about to be done."""
        if event == "os.rename" and self._is_result(arguments[1]):
            self._renamed(*arguments)
        elif event == "open" and self._is_result(arguments[0]) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self._journal.add("violations", f"opened for writing at its final place: {os.fsdecode(arguments[0])}")

    def _is_result(self, path: object) -> bool:
        if not isinstance(path, (bytes, str)):
            return False
        name = os.fsencode(path)
        return name.startswith(tuple(self._sinks)) and b"/." not in name

    def _renamed(self, source: Any, target: Any, source_fd: int, _target_fd: int) -> None:
        target = os.fsencode(target)
        with self._lock, suppress(OSError):
            status = os.stat(source, dir_fd=None if source_fd == -1 else source_fd, follow_symlinks=False)
            if _content(status) not in self._synced:  # it stays there: a rename that fails is made again
                self._journal.add("violations", f"renamed into place before it was synced: {os.fsdecode(target)}")
            folder = os.stat(os.path.dirname(target))
            self._unsafe.setdefault((folder.st_dev, folder.st_ino), set()).add(target)

    def before_sync(self, fd: int) -> tuple[os.stat_result, set[bytes]]:
        """What a sync that begins now makes safe."""
        status = os.fstat(fd)
        with self._lock:
            return status, set(self._unsafe.get((status.st_dev, status.st_ino), ()))

    def after_sync(self, status: os.stat_result, safe: set[bytes]) -> None:
        inode = (status.st_dev, status.st_ino)
        with self._lock:
            if stat.S_ISREG(status.st_mode):
                self._synced.add(_content(status))
            elif inode in self._unsafe:
                self._unsafe[inode] -= safe

    def is_unsafe(self, output: str) -> bool:
        """Whether the name of this result may be lost in a power cut."""
        with self._lock:
            return any(os.fsencode(output) in targets for targets in self._unsafe.values())


def _content(status: os.stat_result) -> Content:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _watch_syncs(syncs: Syncs) -> None:
    fsync = os.fsync

    def watched(fd: Any) -> None:
        before = syncs.before_sync(fd if isinstance(fd, int) else fd.fileno())
        fsync(fd)
        syncs.after_sync(*before)

    os.fsync = watched


class Waits:
    """Until when failed jobs have to wait."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._due: dict[int, tuple[int, float, int]] = {}

    def backs_off(self, job: Any) -> None:
        """From now on, for the configured time and at least nine tenths of it."""
        self._due[job.id] = (job.attempts + 1, time.monotonic() + 0.9 * BACKOFF_SECONDS, self._clock.jumps)

    def starts(self, job: Any) -> None:
        attempts, due, jumps = self._due.pop(job.id, (-1, 0.0, -1))
        if attempts == job.attempts and time.monotonic() < due and jumps == self._clock.jumps:
            self._journal.add("violations", f"attempt {attempts + 1} of job {job.id} began before its time")


def _watch_jobs(journal: Journal, syncs: Syncs, waits: Waits) -> None:
    from daemon.endings import Endings
    from daemon.jobs import JobTable

    completion, back_off, start, settle = JobTable.completion, JobTable.back_off, JobTable.start, Endings.settle

    @functools.wraps(completion)
    def watched_completion(self: JobTable, job: Any, conversion: Any, output: str, *, dispose: bool) -> Any:
        if syncs.is_unsafe(output):
            journal.add("violations", f"job {job.id} is completed before its folder was synced: {output}")
        return completion(self, job, conversion, output, dispose=dispose)

    @functools.wraps(settle)
    def watched_settle(self: Endings, route: Any, job: Any, state: Any) -> None:
        if state in ENDED and (durable := _state_of(job.id)) == "processing":  # a retry may have made it pending by now
            journal.add("violations", f"job {job.id} is said to be {state} and is {durable}")
        settle(self, route, job, state)

    @functools.wraps(back_off)
    def watched_back_off(self: JobTable, job: Any, error: Any, not_before: float) -> bool:
        waits.backs_off(job)
        return back_off(self, job, error, not_before)

    @functools.wraps(start)
    def watched_start(self: JobTable, job: Any) -> None:
        waits.starts(job)
        start(self, job)

    for owner, method in (
        (JobTable, watched_completion),
        (JobTable, watched_back_off),
        (JobTable, watched_start),
        (Endings, watched_settle),
    ):
        setattr(owner, method.__name__, method)


def _watch_disposals(journal: Journal) -> None:
    from daemon.sources.folder import FolderSource
    from daemon.sources.s3 import S3Source

    def watch(kind: Any) -> None:
        dispose = kind.dispose

        @functools.wraps(dispose)
        def watched(self: Any, job: Any, disposal: Any) -> Any:
            if (state := _state_of(job.id)) not in ENDED:
                journal.add("violations", f"the source of job {job.id} is disposed of while the job is {state}")
            return dispose(self, job, disposal)

        kind.dispose = watched

    watch(FolderSource)
    watch(S3Source)


def _state_of(job_id: int) -> str:
    """What is durable of the job."""
    import apsw

    database = os.path.join(os.environ["CHAOS_STATE"], "convertd.db")
    connection = apsw.Connection(database, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(10_000)
        return str(next(iter(connection.execute("SELECT state FROM jobs WHERE id = ?", (job_id,))), ("gone",))[0])
    finally:
        connection.close()

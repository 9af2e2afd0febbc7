"""Deletes or moves a document whose job is done, so that no crash and no other writer loses a byte of it.

The file is first renamed to a hidden name that only the job knows. Under that name nobody opens it any more, and it can
be told for certain whether it is what was converted; then it is deleted or moved, or given back its name. Every step
can be the last one before a crash: the next call finds out how far it came and goes on from there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from daemon.errors import Kind, NotYet, SourceChanged, SourceVanished, TransientError
from daemon.files import (
    NotRegularFile,
    RootFolder,
    folder_beneath,
    fsync_directory,
    hint_for,
    make_directories,
    open_regular,
    rename_noreplace,
    written_by_others,
)
from daemon.model import Disposal, Job, display
from daemon.sources.mover import copy_durably, numbered, same_content
from daemon.sources.readiness import Readiness
from daemon.sources.targets import Targets
from daemon.sources.version import file_version, may_be_copy, same_file

QUIET_SECONDS = 5.0


class Place:
    """Where the document of a job lies: its folder and its name there."""

    def __init__(self, root: bytes, job: Job) -> None:
        if job.location is None:
            *self._folders, self.name = job.source.split(b"/")
            self._root = root
        else:
            self._root, self.name = os.path.split(job.location)
            self._folders = []
        self._job = job

    @contextmanager
    def folder(self) -> Iterator[int]:
        """A descriptor of the folder. Raises FileNotFoundError or NotADirectoryError where there is none."""
        with folder_beneath(self._root, self._folders) as folder:
            yield folder

    @property
    def private(self) -> bytes:
        """The hidden name; no two jobs share one, even those of two daemons."""
        digest = hashlib.sha256(b"\0".join((self._job.watch.encode(), self._job.source, self._job.version.encode())))
        return b".convertd-disposing-%d-%s" % (self._job.id, digest.hexdigest()[:12].encode())

    def holds(self, status: os.stat_result) -> bool:
        """Whether this is the file that was converted. A moved one may have been copied, and got a new inode."""
        same = same_file if self._job.location is None else may_be_copy
        return stat.S_ISREG(status.st_mode) and same(file_version(status), self._job.version)


class Disposer:
    """Disposals of one folder; see `Source.dispose`. `recheck` is told of names that come back."""

    def __init__(
        self,
        root: RootFolder,
        targets: Targets,
        readiness: Readiness,
        recheck: Callable[[bytes], None],
        monotonic: Callable[[], float],
        fault: Callable[[str], None],
    ) -> None:
        self._root = root
        self._targets = targets
        self._readiness = readiness
        self._recheck = recheck
        self._monotonic = monotonic
        self._fault = fault
        self._first_seen: dict[int, tuple[str, float]] = {}

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        """Delete or move the document of a finished job; for a move returns where it lies now. Idempotent.

        With `keep`, which is what a configuration changed meanwhile may say, what was begun is undone, and
        SourceChanged raised.
        """
        place = Place(self._root.path, job)
        try:
            with _translated(job), ExitStack() as stack:
                try:
                    folder = stack.enter_context(place.folder())
                except (FileNotFoundError, NotADirectoryError):
                    folder = None
                location = self._dispose(folder, place, job, disposal)
        except (SourceChanged, SourceVanished):
            self._first_seen.pop(job.id, None)
            raise
        self._first_seen.pop(job.id, None)
        return location

    def has_begun(self, job: Job) -> bool:
        """Whether the document is hidden."""
        place = Place(self._root.path, job)
        with _translated(job):
            try:
                with place.folder() as folder:
                    if _status(folder, place.private) is not None:
                        return True
            except (FileNotFoundError, NotADirectoryError):
                self._root.check()
            self._targets.check_around(job.location)
            return False

    def undo(self, job: Job) -> bool:
        """Give a document back its name that an interrupted disposal has hidden, if there is one."""
        place = Place(self._root.path, job)
        try:
            with place.folder() as folder:
                if _status(folder, place.private) is None:
                    return False
                self._give_back(folder, place, job)
                return True
        except OSError:
            return False

    def _dispose(self, folder: int | None, place: Place, job: Job, disposal: Disposal) -> bytes | None:
        hidden = None if folder is None else _status(folder, place.private)
        status = None if folder is None else _status(folder, place.name)
        if hidden is not None and status is not None and os.path.samestat(status, hidden):
            os.unlink(place.name, dir_fd=folder)  # a rename by link and unlink was interrupted
        if disposal.action == "keep":
            if folder is not None and hidden is not None:
                self._give_back(folder, place, job)
            self._root.look()  # what is hidden on a disk that is away just now is to come back, too
            self._targets.check_around(job.location)
            raise SourceChanged("it is not to be disposed of any more")
        if disposal.action == "move":  # before it is hidden: whoever looks for it meanwhile finds it under its name
            self._targets.check(os.fsencode(disposal.target))
        if folder is None or (hidden is None and (status is None or not place.holds(status))):
            return self._already_done(status, job, disposal)
        if hidden is None:
            assert status is not None
            self._hide(folder, place, job, status)
        self._make_sure(folder, place, job)
        location = self._move(folder, place, job, disposal) if disposal.action == "move" else None
        if disposal.action == "delete":
            self._fault("unlink")
            os.unlink(place.private, dir_fd=folder)
        self._fault("sync source")
        fsync_directory(b".", dir_fd=folder)
        self._fault("disposed")
        return location

    def _already_done(self, status: os.stat_result | None, job: Job, disposal: Disposal) -> bytes | None:
        """The document is neither at its place nor hidden: this was done before, or somebody else did it."""
        self._root.check()
        self._targets.check_around(job.location)
        if disposal.action == "move":
            target = _target_folder(job, disposal)
            with suppress(FileNotFoundError, NotADirectoryError), folder_beneath(target, ()) as folder:
                for name in numbered(job.source.rsplit(b"/", 1)[-1]):
                    there = _status(folder, name)
                    if there is None:
                        break
                    if may_be_copy(file_version(there), job.version):
                        return os.path.join(target, name)
        if status is not None:
            raise SourceChanged("a newer version has taken the document's place")
        if disposal.action == "move":
            raise SourceVanished("the document was removed by somebody else")
        return None

    def _hide(self, folder: int, place: Place, job: Job, status: os.stat_result) -> None:
        seen_version, since = self._first_seen.get(job.id, ("", 0.0))
        if seen_version != file_version(status):
            seen_version, since = file_version(status), self._monotonic()
            self._first_seen[job.id] = (seen_version, since)
        quiet = self._readiness.quiet_seconds(status, self._monotonic() - since)
        if quiet < QUIET_SECONDS:
            raise NotYet("the document has just changed", QUIET_SECONDS - quiet)
        # Asked before the rename too: a file that is only held open is not renamed to and fro every few seconds.
        if self._is_open_for_writing(folder, place.name):
            raise NotYet("another process has the document open for writing", QUIET_SECONDS)
        self._fault("hide")
        rename_noreplace(place.name, place.private, src_dir_fd=folder, dst_dir_fd=folder)
        self._fault("hidden")

    def _make_sure(self, folder: int, place: Place, job: Job) -> None:
        """The hidden file is what was converted and nobody writes it any more; else it gets its name back."""
        written = self._is_open_for_writing(folder, place.private)
        status = _status(folder, place.private)
        if status is None:
            raise SourceVanished("the document was removed by somebody else")
        changed = not place.holds(status)
        if not changed and not written:
            return
        name = self._give_back(folder, place, job)
        if changed or name != place.name:
            raise SourceChanged("the document changed after it was converted")
        raise NotYet("another process has the document open for writing", QUIET_SECONDS)

    def _give_back(self, folder: int, place: Place, job: Job) -> bytes:
        """The hidden file gets its name back, or a free one like it where a newer document has that."""
        self._fault("give back")
        name = _rename_to_free(folder, place.private, folder, place.name)
        fsync_directory(b".", dir_fd=folder)
        if job.location is None:
            parent = job.source.rpartition(b"/")[0]
            self._recheck(parent + b"/" + name if parent else name)
        return name

    def _is_open_for_writing(self, folder: int, name: bytes) -> bool:
        """False also where it cannot be told: then the seconds of quiet must do."""
        if self._readiness.network:
            return False
        try:
            fd = open_regular(name, dir_fd=folder)
        except (OSError, NotRegularFile):
            return False
        try:
            return written_by_others(fd) is True
        finally:
            os.close(fd)

    # -- moving ------------------------------------------------------------------------------------------------

    def _move(self, folder: int, place: Place, job: Job, disposal: Disposal) -> bytes:
        target = _target_folder(job, disposal)
        self._fault("make target")
        make_directories(target)
        self._targets.check(os.fsencode(disposal.target))  # it is there by now, and missed if it goes
        wanted = job.source.rsplit(b"/", 1)[-1]
        with folder_beneath(target, ()) as target_fd:
            self._fault("move")
            try:
                name = _rename_to_free(folder, place.private, target_fd, wanted)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                name = self._move_across(folder, place, target_fd, wanted)
            self._fault("sync target")
            fsync_directory(b".", dir_fd=target_fd)
            self._fault("moved")
        with suppress(FileNotFoundError):
            os.unlink(place.private, dir_fd=folder)  # still there after a copy
        return os.path.join(target, name)

    def _move_across(self, folder: int, place: Place, target_fd: int, wanted: bytes) -> bytes:
        """Copy to another file system; returns the name. A copy that a crash left complete is not made twice."""
        status = os.lstat(place.private, dir_fd=folder)
        for name in numbered(wanted):
            there = _status(target_fd, name)
            if there is None:
                break
            alike = may_be_copy(file_version(there), file_version(status))
            if alike and same_content(folder, place.private, target_fd, name):
                with suppress(FileNotFoundError):
                    os.unlink(place.private, dir_fd=target_fd)  # a rename by link and unlink was interrupted
                return name
        self._fault("copy across")
        copy_durably(folder, place.private, target_fd, place.private)
        self._fault("copied across")
        return _rename_to_free(target_fd, place.private, target_fd, wanted)


@contextmanager
def _translated(job: Job) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        path = b"" if error.filename is None else os.fsencode(error.filename)
        raise TransientError(
            Kind.UNREADABLE,
            f"the source could not be disposed of: {error.strerror}: {display(path or job.source)}",
            hint_for(error, "Mend the permissions or free space; convertd tries again by itself."),
        ) from error


def _target_folder(job: Job, disposal: Disposal) -> bytes:
    return os.path.dirname(os.path.join(os.fsencode(disposal.target), job.source))


def _rename_to_free(folder: int, name: bytes, target_fd: int, wanted: bytes) -> bytes:
    """Rename to `wanted` or, where that is taken, to the first free `~N` of it. Returns the name."""
    for free in numbered(wanted):
        try:
            rename_noreplace(name, free, src_dir_fd=folder, dst_dir_fd=target_fd)
        except FileExistsError:
            if not _is_same(folder, name, target_fd, free):
                continue
            os.unlink(name, dir_fd=folder)  # a rename by link and unlink was interrupted
        return free
    raise AssertionError("numbers do not end")


def _is_same(folder_a: int, name_a: bytes, folder_b: int, name_b: bytes) -> bool:
    """Whether these two names are one file."""
    status_a, status_b = _status(folder_a, name_a), _status(folder_b, name_b)
    return status_a is not None and status_b is not None and os.path.samestat(status_a, status_b)


def _status(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None

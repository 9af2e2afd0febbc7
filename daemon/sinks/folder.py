"""A folder as a sink.

Results are written to the hidden folder `.convertd-tmp` of the sink and renamed from there into place, so that no
reader sees a part of a file, and what a crash leaves behind is found by listing one folder.

Some file systems fold names: `Invoice.pdf.md` and `invoice.pdf.md` are one file there. So that no document replaces the
results of another, whoever publishes there looks first whose they are, one after the other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from daemon.errors import DocumentError, EnvironmentProblem, Kind, TransientError
from daemon.faults import Fault, no_fault
from daemon.files import (
    NotRegularFile,
    RootFolder,
    found_in_other_case,
    fsync_directory,
    hint_for,
    open_regular,
    write_durably,
)
from daemon.model import display
from daemon.naming import PATH_BYTES
from daemon.results import MARKDOWN, SIDECAR, named_source
from daemon.settings import S3
from daemon.sinks.base import UNKNOWN, Content, Origin, Surroundings

TEMPORARY = b".convertd-tmp"
STALE_SECONDS = 86400.0
CANARY_BYTES = 64 * 1024
CANARY_PREFIX = b".convertd-canary-"
MOST_KNOWN_FOLDERS = 10_000
_HINT = "Free space, or mend the folder and its permissions; then retry."
_TAKEN_HINT = (
    "Rename one of the two documents. If only the results of the other are left, and are no longer needed there, take"
    " them out of the sink, then retry."
)
_BLOCK = bytes(1 << 20)
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderSink:
    """Results below one folder, given by its absolute path. All methods may be called from any thread.

    The folder is made at its first use if only it is missing, but not to be read. `fault` is called with a label before
    each step of a publish, for tests.
    """

    name_bytes = PATH_BYTES
    remote = False

    def __init__(
        self,
        root: str,
        *,
        fault: Fault = no_fault,
        clock: Callable[[], float] = time.time,
        silent: bool = False,
    ) -> None:
        self._root = RootFolder(os.fsencode(root), silent=silent)
        self._clock = clock
        self._fault = fault
        self._lock = threading.Lock()
        self._durable: set[bytes] = set()
        self._replacing = threading.Lock()
        self._folds = False
        self._looked_at: tuple[int, int] | None = None

    @classmethod
    def at(cls, location: str, surroundings: Surroundings, settings: S3) -> FolderSink:
        """The sink in this folder."""
        return cls(location, fault=surroundings.fault, silent=surroundings.silent)

    def publish(self, name: str | bytes, files: Mapping[str, Content], origin: Origin = UNKNOWN) -> str:
        base = self._path(name)
        targets = [base + os.fsencode(suffix) for suffix in files]
        with self._translated(base, sum(map(len, files.values()))), self._temporary() as folder:
            written: list[bytes] = []
            try:
                for content in files.values():
                    self._fault("write")
                    written.append(_new_name())
                    write_durably(written[-1], [content], dir_fd=folder)
                self._make_folder(os.path.dirname(base))
                with self._turn():
                    self._refuse_others(base, files, origin.source)
                    for target, content in zip(targets, files.values(), strict=True):
                        self._fault("rename")
                        self._rename(folder, written[0], target, content)
                        del written[0]
                self._fault("sync")
                fsync_directory(os.path.dirname(base))
            finally:
                for leftover in written:
                    with suppress(OSError):
                        os.unlink(leftover, dir_fd=folder)
        return targets[-1].decode("utf-8", "backslashreplace")

    def remove(self, name: str | bytes, suffixes: tuple[str, ...], origin: Origin = UNKNOWN) -> None:
        base = self._path(name)
        removed = False
        with self._translated(base, 0), self._turn():
            self._root.check()
            for suffix in suffixes:
                if self._other(base, suffix, origin.source) is not None:
                    continue
                with suppress(FileNotFoundError, NotADirectoryError):
                    os.unlink(base + os.fsencode(suffix))
                    removed = True
            if removed:
                fsync_directory(os.path.dirname(base))

    def folds(self) -> bool:
        """Asked of the hidden folder of an earlier publish, or else of what the sink lies in."""
        path = os.path.join(self._root.path, TEMPORARY)
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        try:
            return not os.path.ismount(path) and found_in_other_case(path)
        except OSError:
            return False

    def read(self, name: str | bytes, suffix: str) -> bytes | None:
        path = self._path(name) + os.fsencode(suffix)
        try:
            self._root.look()
            return _content(path)
        except OSError as error:
            raise TransientError(
                Kind.INTERNAL, f"the output cannot be read: {error.strerror}: {display(path)}", _HINT
            ) from error

    def probe(self, size_bytes: int) -> None:
        try:
            with self._temporary() as folder:
                name = _new_name()
                write_durably(name, _zeros(max(CANARY_BYTES, size_bytes)), dir_fd=folder)
                canary = os.path.join(self._root.path, CANARY_PREFIX + name)  # the way a result goes
                try:
                    os.rename(name, canary, src_dir_fd=folder)
                finally:
                    for leftover in (name, canary):
                        with suppress(FileNotFoundError):
                            os.unlink(leftover, dir_fd=folder)
        except OSError as error:
            raise EnvironmentProblem(
                f"the sink {display(self._root.path)} cannot be written: {error.strerror}",
                hint_for(error, "Free space or mend its permissions; convertd goes on by itself."),
            ) from error

    def sweep(self) -> None:
        """Remove what an interrupted publish left behind, unless somebody is publishing here just now: this process
        when its configuration is read again, or another one.

        Where a file system without locks does not tell, only what is so old that nobody can be writing it any more.
        Raises EnvironmentProblem.
        """
        try:
            with self._opened() as folder:
                alone = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for name in os.listdir(folder):
                    self._sweep(name, folder, alone)
                for canary in os.listdir(self._root.path):
                    if canary.startswith(CANARY_PREFIX):
                        self._sweep(os.path.join(self._root.path, canary), folder, alone)
        except BlockingIOError:
            return
        except OSError as error:
            raise EnvironmentProblem(
                f"the sink {display(self._root.path)} cannot be swept: {error.strerror}", hint_for(error, _HINT)
            ) from error

    def close(self) -> None:
        """Leave no empty folder of our own behind. Call when nobody publishes any more."""
        with suppress(OSError):
            os.rmdir(os.path.join(self._root.path, TEMPORARY))

    def _path(self, name: str | bytes) -> bytes:
        relative = os.fsencode(name)
        if b".." in relative.split(b"/") or relative.startswith(b"/"):
            raise ValueError(f"not a name below the sink: {relative!r}")
        return os.path.join(self._root.path, relative)

    def _sweep(self, name: str | bytes, folder: int, alone: bool) -> None:
        with suppress(FileNotFoundError):  # who publishes without a lock has renamed it meanwhile
            if alone or self._clock() - os.lstat(name, dir_fd=folder).st_mtime > STALE_SECONDS:
                os.unlink(name, dir_fd=folder)

    @contextmanager
    def _temporary(self) -> Iterator[int]:
        """A descriptor of the temporary folder for who writes there, which a sweep heeds.

        Raises EnvironmentProblem where the sink is not there.
        """
        with self._opened() as folder:
            _lock(folder, fcntl.LOCK_SH)
            yield folder

    @contextmanager
    def _opened(self) -> Iterator[int]:
        status = self._root.check()
        path = os.path.join(self._root.path, TEMPORARY)
        try:
            folder = os.open(path, _FOLDER_FLAGS)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(path)
            fsync_directory(self._root.path)
            folder = os.open(path, _FOLDER_FLAGS)
        try:
            place = (status.st_dev, status.st_ino)
            if place != self._looked_at:  # once, and again where another disk is mounted in its place
                self._folds, self._looked_at = found_in_other_case(path), place
            yield folder
        finally:
            os.close(folder)

    def _turn(self) -> AbstractContextManager[object]:
        """Held from the look at whose results there are until they are replaced. Needed where names are folded only."""
        return self._replacing if self._folds else nullcontext()

    def _refuse_others(self, base: bytes, suffixes: Iterable[str], source: bytes) -> None:
        if not self._folds:
            return
        for suffix in dict.fromkeys(SIDECAR if suffix == MARKDOWN else suffix for suffix in suffixes):
            other = self._other(base, suffix, source)
            if other is not None:
                what = f"its output would replace that of {display(other)}, whose name is the same in this sink"
                raise DocumentError(Kind.INTERNAL, what, _TAKEN_HINT)

    def _other(self, base: bytes, suffix: str, source: bytes) -> bytes | None:
        """The document whose file lies there, if that is not ours."""
        if not (self._folds and source):
            return None
        owner = named_source(_content(base + os.fsencode(suffix)) or b"")
        return owner if owner != source else None

    def _rename(self, folder: int, name: bytes, target: bytes, content: Content) -> None:
        try:
            os.rename(name, target, src_dir_fd=folder)
        except FileNotFoundError:
            with self._lock:
                self._durable.clear()  # somebody has removed a folder of the sink
            self._make_folder(os.path.dirname(target))
            os.rename(name, target, src_dir_fd=folder)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Another file system is mounted inside the sink. A crash here may leave the hidden file behind.
            beside = os.path.join(os.path.dirname(target), b".convertd-" + name)
            write_durably(beside, [content])
            os.rename(beside, target)
            os.unlink(name, dir_fd=folder)

    def _make_folder(self, folder: bytes) -> None:
        """Make a folder and its parents, durable on return even where another thread has just made them."""
        missing = []
        with self._lock:
            while folder != self._root.path and folder not in self._durable:
                missing.append(folder)
                folder = os.path.dirname(folder)
        for folder in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(folder)
            fsync_directory(os.path.dirname(folder))
            with self._lock:
                if len(self._durable) >= MOST_KNOWN_FOLDERS:
                    self._durable.clear()
                self._durable.add(folder)

    @contextmanager
    def _translated(self, base: bytes, size_bytes: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TransientError(
                Kind.INTERNAL,
                f"the output cannot be written: {error.strerror}: {display(base)}",
                hint_for(error, _HINT),
                size_bytes=size_bytes,
            ) from error


def _content(path: bytes) -> bytes | None:
    """What a file holds; None where there is none."""
    try:
        fd = open_regular(path)
    except (FileNotFoundError, NotADirectoryError, NotRegularFile):
        return None
    with open(fd, "rb") as file:
        return file.read()


def _lock(folder: int, lock: int) -> bool:
    """Shared by those who write, exclusive for a sweep; False on a file system without locks. BlockingIOError where
    LOCK_NB cannot lock."""
    try:
        fcntl.flock(folder, lock)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _new_name() -> bytes:
    return secrets.token_hex(8).encode() + b".tmp"


def _zeros(size_bytes: int) -> Iterator[memoryview]:
    while size_bytes > 0:
        yield memoryview(_BLOCK)[:size_bytes]
        size_bytes -= len(_BLOCK)

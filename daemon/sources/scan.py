"""Walks a folder tree and remembers its folders' mtimes, so that a changed folder is found by one stat."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from daemon.model import Candidate
from daemon.sources.version import file_version

BATCH = 512
YIELD_AFTER_ENTRIES = 4096
RACY_NS = 2_000_000_000
_RACY = -1


class Tree:
    """What is known of the folders below `root`; files are only passed on. Used by one thread.

    Keeps an entry a folder, nothing a file. Raises OSError only where the root itself cannot be listed. `entering` is
    called with each folder before it is listed.
    """

    def __init__(
        self,
        root: bytes,
        takes: Callable[[bytes], bool],
        clock: Callable[[], float],
        entering: Callable[[bytes], None] = lambda folder: None,
    ) -> None:
        self._root = root
        self._takes = takes
        self._clock = clock
        self._entering = entering
        self._mtimes: dict[bytes, int] = {}
        self.unreadable: dict[bytes, str] = {}

    def walk(self, start: bytes = b"", *, known: bool = True) -> Iterator[list[Candidate]]:
        """The files below a folder in batches, oldest first in each. Empty batches come too, as signs of life.

        `known=False` passes over subfolders that were listed before.
        """
        stack = [start]
        files: list[tuple[int, Candidate]] = []
        entries = 0
        while stack:
            for entry in self._list(stack.pop()):
                entries += 1
                if isinstance(entry, bytes):
                    if known or entry not in self._mtimes:
                        stack.append(entry)
                elif entry is not None:
                    files.append(entry)
                if len(files) >= BATCH or entries >= YIELD_AFTER_ENTRIES:
                    yield _oldest_first(files)
                    files, entries = [], 0
        yield _oldest_first(files)

    def changed(self) -> Iterator[bytes]:
        """The folders in which names have appeared or gone since they were listed."""
        for folder, listed in list(self._mtimes.items()):
            try:
                mtime = os.stat(self._path(folder), follow_symlinks=False).st_mtime_ns
            except OSError:
                self._mtimes.pop(folder, None)
                self.unreadable.pop(folder, None)
                continue
            if mtime != listed:
                yield folder

    def _list(self, folder: bytes) -> Iterator[bytes | tuple[int, Candidate] | None]:
        """The subfolders (as paths) and files (with their mtimes) of one folder; None for all else."""
        path = self._path(folder)
        self._entering(folder)
        try:
            mtime = os.stat(path, follow_symlinks=not folder).st_mtime_ns
            # A name that appears in the same tick as the last one leaves no trace in the mtime: list it once more.
            racy = self._clock() * 1e9 - mtime < RACY_NS
            with os.scandir(path) as entries:
                self._mtimes[folder] = _RACY if racy else mtime
                self.unreadable.pop(folder, None)
                for entry in entries:
                    yield self._look(_join(folder, entry.name), entry)
        except OSError as error:
            self._mtimes.pop(folder, None)
            if not folder:
                raise
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                self.unreadable[folder] = error.strerror or str(error)

    def _look(self, source: bytes, entry: os.DirEntry[bytes]) -> bytes | tuple[int, Candidate] | None:
        try:
            if entry.is_dir(follow_symlinks=False):
                return None if entry.name.startswith(b".") else source
            if not entry.is_file(follow_symlinks=False) or not self._takes(source):
                return None
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return None  # gone, or it will be met again
        return candidate(source, status)

    def _path(self, folder: bytes) -> bytes:
        return os.path.join(self._root, folder) if folder else self._root


def candidate(source: bytes, status: os.stat_result) -> tuple[int, Candidate] | None:
    """A file as a candidate, with its mtime; None for what is not a regular file."""
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_mtime_ns, Candidate(source, file_version(status), status.st_size)


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _oldest_first(files: list[tuple[int, Candidate]]) -> list[Candidate]:
    files.sort(key=lambda file: file[0])
    return [candidate for _, candidate in files]

"""What a source's tree looks like: how many folders are to be watched, and what in them is in the way."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from daemon.files import open_regular, written_by_others
from daemon.words import display

SECONDS = 10.0
MOST_ENTRIES = 300_000
OPENED_FILES = 50


class Tree(NamedTuple):
    """`whole` says that everything was seen. Each of the others is the first that was found, as text, or empty.

    Hidden folders count, as inotify watches them too; what is in their way is in nobody's, as no documents are taken
    from them.

    `asked` tells whether the kernel says who writes a file: None where there was no file to ask about.
    """

    folders: int
    whole: bool
    link: str
    closed_folder: str
    closed_file: str
    fixed_folder: str
    asked: bool | None


def look_through(root: str, stopped: Callable[[], bool]) -> Tree:
    """Walk, within bounds. Follows no link, opens a few files only, and reads none."""
    look = _Look(os.fsencode(root), stopped)
    for folder in look.folders():
        look.enter(folder)
    return look.result()


class _Look:
    def __init__(self, root: bytes, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        self._until = time.monotonic() + SECONDS
        self._folders = self._entries = self._opened = 0
        self._first: dict[str, str] = {}
        self._asked: bool | None = None
        self._root = root
        self._stack = [root]

    def folders(self) -> Iterator[bytes]:
        while self._stack and not self._over():
            yield self._stack.pop()

    def enter(self, folder: bytes) -> None:
        self._folders += 1
        hidden = b"/." in folder[len(self._root.rstrip(b"/")) :]
        try:
            with os.scandir(folder) as entries:
                if not hidden and not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                    self._note("fixed_folder", folder)
                for entry in entries:
                    self._entries += 1
                    self._look_at(entry, hidden)
                    if self._over():
                        self._stack.append(folder)  # not all of it was seen
                        return
        except (FileNotFoundError, NotADirectoryError):
            self._folders -= 1  # gone since it was listed
        except OSError:
            if not hidden:
                self._note("closed_folder", folder)

    def result(self) -> Tree:
        first = {key: self._first.get(key, "") for key in ("link", "closed_folder", "closed_file", "fixed_folder")}
        return Tree(self._folders, not self._stack, asked=self._asked, **first)

    def _look_at(self, entry: os.DirEntry[bytes], hidden: bool) -> None:
        with suppress(OSError):  # gone
            if entry.is_symlink():
                if entry.is_dir():
                    self._note("link", entry.path)
            elif entry.is_dir():
                self._stack.append(entry.path)
            elif not hidden and not entry.name.startswith(b".") and self._opened < OPENED_FILES:
                self._open(entry.path)

    def _open(self, path: bytes) -> None:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        self._opened += 1
        try:
            fd = open_regular(path)
        except PermissionError:
            self._note("closed_file", path)
            return
        try:
            self._asked = bool(self._asked) or written_by_others(fd) is not None
        finally:
            os.close(fd)

    def _note(self, what: str, path: bytes) -> None:
        self._first.setdefault(what, display(path))

    def _over(self) -> bool:
        return self._entries >= MOST_ENTRIES or time.monotonic() >= self._until or self._stopped()

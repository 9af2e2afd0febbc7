"""The kernel's word that something happens in folders, to sleep by until it does. What has happened is for others to
tell.

By inotify itself, beside the watch that watchfiles has over the same folders: that one can only be asked again and
again whether there are news, and every time it is asked a thread wakes up for nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select

MOST_FOLDERS = 1000
"""Each takes some memory of the kernel, and one of the inotify watches that it allows a user."""

_CREATE, _MOVED_TO, _MODIFY, _ATTRIB = 0x100, 0x80, 0x2, 0x4
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_ONLYDIR, _DONT_FOLLOW = 0x0100_0000, 0x0200_0000
_MASK = _CREATE | _MOVED_TO | _MODIFY | _ATTRIB | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_NOT_TO_BE_LISTED = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
_READ_BYTES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class Wakeups:
    """Wakes by what happens in the folders that were told, not below them. Used by one thread; `close` ends it.

    `blind` says that it cannot speak for all of them and has ended, because there are too many, or the kernel gives no
    more. It is never so again after that, so who finds it blind looks for news without it.
    """

    def __init__(self, most_folders: int = MOST_FOLDERS) -> None:
        self._most_folders = most_folders
        self._watched: set[int] = set()
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        if not self.blind:
            self._poll.register(self._fd, select.POLLIN)

    @property
    def blind(self) -> bool:
        return self._fd < 0

    def add(self, folder: bytes, *, follow: bool = False) -> None:
        """Wake by this folder, too; to be called before it is listed, so that nothing in it goes unnoticed: what is
        not in the list wakes. That holds for a folder that is in another's place by then as well, as it comes there by
        a change of its parent.
        """
        if self.blind:
            return
        watch = _libc.inotify_add_watch(self._fd, folder, _MASK if follow else _MASK | _DONT_FOLLOW)
        if watch >= 0:
            self._watched.add(watch)
            if len(self._watched) > self._most_folders and not self._forget_gone():
                self.close()
        elif ctypes.get_errno() not in _NOT_TO_BE_LISTED:
            self.close()

    def wait(self, seconds: float) -> bool:
        """Sleep until something happens, at most so long; whether it has, since this was last said. Not while blind."""
        if not self._poll.poll(max(0.0, seconds) * 1000):
            return False
        os.read(self._fd, _READ_BYTES)  # what does not fit in wakes once more, and that is all it does
        return True

    def close(self) -> None:
        """Watch nothing any more."""
        if not self.blind:
            os.close(self._fd)
            self._fd = -1

    def _forget_gone(self) -> bool:
        """Leave out the folders that are no longer there; whether the rest are few enough."""
        try:
            with open(f"/proc/self/fdinfo/{self._fd}", encoding="ascii") as file:
                lines = [line.split() for line in file if line.startswith("inotify wd:")]
        except OSError:
            return False
        self._watched = {int(words[1].removeprefix("wd:"), 16) for words in lines}
        return len(self._watched) <= self._most_folders

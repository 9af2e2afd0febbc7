"""The kernel's news about a folder tree, by watchfiles. The only importer of watchfiles.

What was found about it (1.3): it reports no close after writing and no overflow, loses files in new subfolders, ends
for good at a name that is not UTF-8, drops what it has gathered when its stop event is set, hides a reached watch limit
if it is told to ignore permissions, and follows symbolic links to folders when it is armed. Hence all the looking again
in `discovery`; the news are hints that make it fast, and nothing depends on one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from watchfiles._rust_notify import RustNotify

DEBOUNCE_MS = 50
STEP_MS = 25
NO_WAIT_MS = 1


class CannotWatch(Exception):
    """The kernel will not report changes here; the text says why, in a user's words."""


class WatchLost(Exception):
    """The watch has ended, and changes may have been lost."""


class Changes:
    """A watch over everything below `root`, armed on return. Used by one thread; `close` ends it."""

    def __init__(self, root: bytes) -> None:
        self._prefix_bytes = len(root) + 1
        try:
            path = root.decode("utf-8")
        except UnicodeDecodeError:
            raise CannotWatch("the name of the folder is not UTF-8") from None
        try:
            self._notify = _arm(path)
        except (OSError, RuntimeError) as error:
            raise CannotWatch(_reason(error)) from error

    def wait(self, seconds: float) -> set[bytes]:
        """Paths below the root that have changed; empty after `seconds`. Raises WatchLost."""
        timeout_ms = max(NO_WAIT_MS, int(seconds * 1000))
        step_ms = STEP_MS if seconds > 0 else NO_WAIT_MS
        try:
            changes = self._notify.watch(DEBOUNCE_MS, step_ms, timeout_ms, None)
        except RuntimeError as error:
            raise WatchLost(str(error)) from error
        if isinstance(changes, str):
            return set()
        return {os.fsencode(path)[self._prefix_bytes :] for _, path in changes}

    def close(self) -> None:
        """Stop watching."""
        self._notify.close()


def _arm(path: str) -> RustNotify:
    try:
        return RustNotify([path], False, False, 0, True, False)
    except PermissionError:
        return RustNotify([path], False, False, 0, True, True)  # the rest of the tree can be watched


def _reason(error: Exception) -> str:
    if "limit reached" in str(error):
        return "the limit of inotify watches is reached; raise fs.inotify.max_user_watches"
    if "os error 24" in str(error):
        return "the limit of inotify instances is reached; raise fs.inotify.max_user_instances"
    return str(error)


def links_to_folders(root: bytes, stopped: Callable[[], bool]) -> bytes | None:
    """The first symbolic link to a folder below `root`, if there is any: watchfiles would watch all that lies behind
    it, were it the whole disk."""
    for folder in _folders(root):
        if stopped():
            return None
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink() and entry.is_dir():
                        return entry.path
        except OSError:
            continue
    return None


def _folders(root: bytes) -> Iterator[bytes]:
    """Every folder below `root`, hidden ones too, and `root` itself."""
    stack = [root]
    while stack:
        folder = stack.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                stack += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue

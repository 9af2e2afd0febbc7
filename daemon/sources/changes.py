"""The kernel's news about a folder tree, by watchfiles. The only importer of watchfiles.

What was found about it (1.3): it reports no close after writing and no overflow, loses files in new subfolders, ends
for good at a name that is not UTF-8, drops what it has gathered when its stop event is set, hides a reached watch limit
if it is told to ignore permissions, and follows symbolic links to folders when it is armed. Hence all the looking again
in `discovery`; the news are hints that make it fast, and nothing depends on one of them.

It gathers news in a thread of its own, and who waits for them wakes up at every step to see whether there are any. So
it is asked only once `wakeups` has told that something happens; that, too, is no more than a hint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from watchfiles._rust_notify import RustNotify

from daemon.sources.wakeups import Wakeups

DEBOUNCE_MS = 50
STEP_MS = 25
"""News are handed out once a step has brought no more of them, so this is what many files are gathered by."""
FIRST_STEP_MS = 10
"""The same for the first news after a calm, most often of a single file."""
NO_WAIT_MS = 1
LISTEN_SECONDS = 0.1
"""How long after the kernel's word watchfiles may take to have the news; when that is over it is calm again."""
LOOK_SECONDS = 1.0
"""After so long a wait ends by asking in a calm, too: the news may have taken longer, or the watch has ended."""


class CannotWatch(Exception):
    """The kernel will not report changes here; the text says why, in a user's words."""


class WatchLost(Exception):
    """The watch has ended, and changes may have been lost."""


class Changes:
    """A watch over everything below `root`, armed on return. Used by one thread; `close` ends it."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._prefix_bytes = len(root) + 1
        try:
            path = root.decode("utf-8")
        except UnicodeDecodeError:
            raise CannotWatch("the name of the folder is not UTF-8") from None
        try:
            self._notify = _arm(path)
        except (OSError, RuntimeError) as error:
            raise CannotWatch(_reason(error)) from error
        self._wakeups = Wakeups()
        self._listen_until = 0.0
        self._look_at = 0.0

    def entering(self, folder: bytes) -> None:
        """To be told of the root and of every folder below it before it is listed: what happens in others may be
        noticed a second late."""
        self._wakeups.add(os.path.join(self._root, folder) if folder else self._root, follow=not folder)

    def wait(self, seconds: float) -> set[bytes]:
        """Paths below the root that have changed; empty after `seconds`. Raises WatchLost."""
        ends = time.monotonic() + seconds
        while True:
            paths = self._listen(ends)
            if paths or time.monotonic() >= ends:
                return paths

    def _listen(self, ends: float) -> set[bytes]:
        """Sleep until there may be news, and ask for them."""
        now = time.monotonic()
        if now >= ends:
            return self._ask(NO_WAIT_MS, 0.0)
        if self._wakeups.blind:
            return self._ask(STEP_MS, ends - now)
        calm = now >= self._listen_until
        happened = self._happened(ends - now if calm else 0.0)
        now = time.monotonic()
        if calm and not happened:
            return self._ask(NO_WAIT_MS, 0.0) if now >= self._look_at else set()
        seconds = min(ends, self._listen_until) - now
        if calm:
            paths = self._ask(FIRST_STEP_MS, seconds)
            self._happened(0.0)  # what these news are about is no reason to gather more
            return paths
        if happened:
            return self._ask(STEP_MS, seconds)
        return self._ask(min(STEP_MS, max(FIRST_STEP_MS, int(1000 * seconds))), seconds)

    def _happened(self, seconds: float) -> bool:
        """Whether anything has, or does within so many seconds; then it is listened for the news of it."""
        if not self._wakeups.wait(seconds):
            return False
        self._listen_until = time.monotonic() + LISTEN_SECONDS
        return True

    def _ask(self, step_ms: int, seconds: float) -> set[bytes]:
        timeout_ms = max(NO_WAIT_MS, int(seconds * 1000))
        try:
            changes = self._notify.watch(DEBOUNCE_MS, step_ms, timeout_ms, None)
        except RuntimeError as error:
            raise WatchLost(str(error)) from error
        self._look_at = time.monotonic() + LOOK_SECONDS
        if isinstance(changes, str):
            return set()
        return {os.fsencode(path)[self._prefix_bytes :] for _, path in changes}

    def close(self) -> None:
        """Stop watching."""
        self._wakeups.close()
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

"""The kernel's limits of inotify against what the watches need of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from daemon.checks.base import Finding, ok, warning
from daemon.sources.wakeups import MOST_FOLDERS

LIMITS = "/proc/sys/fs/inotify"
SHARE = 0.9
"""Of the limit: others watch files as well."""


class Tally:
    """Counts the folders that are to be watched, and what that takes of the kernel. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.folders = self.watches = self.instances = 0

    def add(self, folders: int) -> None:
        """One more watch with so many: they are watched for their news, and to be woken by."""
        with self._lock:
            self.folders += folders
            self.watches += folders + min(folders, MOST_FOLDERS)
            self.instances += 2


def check(tally: Tally, limits: str = LIMITS) -> Iterator[Finding]:
    """To be asked when all watches have been looked at."""
    if not tally.instances:
        return
    enough = True
    for what, needed in (("watches", tally.watches), ("instances", tally.instances)):
        limit = _limit(f"{limits}/max_user_{what}")
        if limit is not None and needed > SHARE * limit:
            enough = False
            more = max(2 * needed, 2 * limit)
            key = f"fs.inotify.max_user_{what}"
            yield warning(
                f"{needed:,} of the {limit:,} inotify {what} of a user are needed; without, changes are noticed late",
                f"echo {key}={more} | sudo tee /etc/sysctl.d/60-convertd.conf && sudo sysctl --system",
            )
    if enough:
        yield ok(f"inotify: {tally.folders:,} folders are far from the limits")


def _limit(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None

"""The state_dir: its disk, its job table, and the daemon that holds it."""

from __future__ import annotations

import glob
import os
import pwd
import stat
import time
from collections.abc import Iterator
from typing import Any

from daemon import __version__, queries
from daemon.checks.base import Check, Finding, Group, Stopping, ok, problem, warning
from daemon.checks.folders import Folder
from daemon.checks.remedies import quoted, remedy_for
from daemon.config import Config
from daemon.db import reader
from daemon.schema import MIGRATIONS
from daemon.statedir import StateDir

TABLE_BYTES = 256 << 20
AHEAD_SECONDS = 300.0


def group(state: StateDir, config: Config | None, live: dict[str, Any] | None) -> Group:
    """The checks of the state_dir. `live` is what a running daemon says of itself."""
    return Group(f"state_dir {state.path}", _check(state, config, live))


def _check(state: StateDir, config: Config | None, live: dict[str, Any] | None) -> Check:
    def check(stopping: Stopping) -> Iterator[Finding]:
        yield from _daemon(live)
        folder = Folder("state_dir", state.path, daemon_runs=live is not None, with_parents=True)
        if missing := list(folder.missing()):
            yield from missing
            return
        yield from _owner(state)
        yield from folder.written("the job table", locked=True)
        yield from _disk(folder)
        yield from folder.room(TABLE_BYTES, "the job table")
        yield from _spool(state, config)
        if os.path.exists(state.database):
            yield from _table(state)

    return check


def _daemon(live: dict[str, Any] | None) -> Iterator[Finding]:
    if live is None:
        yield ok("no daemon runs (start it: convertd run)")
    elif live["version"] is None:
        what = f"a daemon (pid {live['pid']}) holds the state_dir but does not answer"
        yield problem(what, f"Look for a disk that hangs, or a stopped process: ps -o stat,wchan= -p {live['pid']}")
    elif live["version"] != __version__:
        what = f"the daemon that runs is convertd {live['version']}; this is {__version__}"
        yield warning(what, "Restart it: systemctl restart convertd, or stop and start convertd run")
    else:
        yield ok(f"a daemon runs: pid {live['pid']}, convertd {live['version']}, {live['state']}")


def _owner(state: StateDir) -> Iterator[Finding]:
    """Root may do what the daemon may not, so that what root finds out proves little."""
    status = os.stat(state.path)
    owner = status.st_uid
    if status.st_mode & 0o077:
        what = f"others may look into state_dir (mode {stat.S_IMODE(status.st_mode):o}): it holds names of documents"
        yield warning(what, f"chmod 700 {quoted(state.path)}")
    if os.geteuid() == 0 and owner != 0:
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        yield warning(f"you are root, but state_dir belongs to {name}", f"sudo -u {name} convertd doctor")


def _disk(folder: Folder) -> Iterator[Finding]:
    kind = folder.filesystem()
    if folder.is_remote():
        level = warning if kind.startswith("fuse") else problem
        what = f"state_dir lies on {kind}: the job table is not safe there (it needs shared memory and locks)"
        yield level(what, "Give state_dir a folder on a local disk; sources and sinks may stay where they are")


def _spool(state: StateDir, config: Config | None) -> Iterator[Finding]:
    """What is fetched from buckets and too large for memory lies there meanwhile."""
    remote = config is not None and any(not os.path.isabs(watch.source) for watch in config.watches)
    if config is None or not remote or config.limits.file_size_bytes <= config.limits.spool_above_bytes:
        return
    path = state.spool if os.path.isdir(state.spool) else state.path
    spool = Folder("spool", path, daemon_runs=False)
    yield from spool.room(config.limits.file_size_bytes, "an object as large as limits.file_size")


def _table(state: StateDir) -> Iterator[Finding]:
    with reader(state.database, any_layout=True) as db:
        version = int(db.pragma("user_version"))
        if version > len(MIGRATIONS):
            what = f"the job table was made by a newer convertd (layout {version}, this one knows {len(MIGRATIONS)})"
            yield problem(what, "Install that newer convertd again, or give this one another state_dir")
            return
        if version < len(MIGRATIONS):
            yield ok("the job table is of an older convertd: migrated at the next start, a backup is kept beside it")
        ahead = max((when for when in queries.newest_by_watch(db).values()), default=0.0) - time.time()
        if ahead > AHEAD_SECONDS:
            what = f"the newest job is {ahead:,.0f} s in the future: this machine's clock was set back"
            yield warning(what, "timedatectl set-ntp true; until then, what is new counts as old")
    try:
        size_bytes = os.stat(state.database).st_size
    except OSError as error:
        yield problem(f"the job table cannot be looked at: {error.strerror}", remedy_for(error, state.path))
        return
    yield ok(f"the job table has {size_bytes / 2**20:,.1f} MiB (convertd prune drops what is old)")
    for backup in sorted(glob.glob(f"{glob.escape(state.database)}.v*.bak")):
        mib = os.stat(backup).st_size / 2**20
        yield ok(f"an update has left a backup of {mib:,.1f} MiB; once content: rm {quoted(backup)}")

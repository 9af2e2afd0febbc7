"""This machine: its clock, its limits, its temporary folder."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator

from daemon.checks.base import Finding, Stopping, ok, problem, warning
from daemon.checks.remedies import quoted
from daemon.config import Config

EARLIEST = 1_735_689_600.0
"""2025: whatever is before is a clock that was never set."""
FILES_AT_LEAST, FILES_A_WORKER = 256, 32
TEMPORARY = "/tmp"  # noqa: S108 (looked at; `tempfile` would try it out, and raise where there is none)
TEMPORARY_BYTES = 64 << 20


def check(config: Config | None, stopping: Stopping) -> Iterator[Finding]:
    """What does not depend on any watch."""
    yield from clock(time.time())
    yield from open_files(config.workers if config else 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield from temporary(os.environ.get("TMPDIR") or TEMPORARY)
    yield from memory(config, memory_bytes(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))


def clock(now: float) -> Iterator[Finding]:
    """Whether it can be right."""
    if now < EARLIEST:
        yield problem(f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}", "timedatectl set-ntp true")
    else:
        yield ok(f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC")


def open_files(workers: int, limit: int) -> Iterator[Finding]:
    """Of one process: documents, sockets to converters, connections to buckets."""
    needed = FILES_AT_LEAST + FILES_A_WORKER * workers
    if limit != resource.RLIM_INFINITY and limit < needed:
        what = f"a process may have {limit:,} files open; {workers} workers may need {needed:,}"
        yield warning(what, f"ulimit -n {needed}, or LimitNOFILE={needed} in the unit")
    else:
        yield ok(f"open files: {'any number' if limit == resource.RLIM_INFINITY else f'{limit:,}'} a process")


def temporary(folder: str) -> Iterator[Finding]:
    """Nothing that convertd brings needs it, as converters write nothing; engines and hooks of one's own may."""
    try:
        status = os.statvfs(folder)
    except OSError as error:
        yield warning(f"{folder} cannot be used: {error.strerror}", "mkdir -m 1777 /tmp, or set TMPDIR")
        return
    if status.f_flag & os.ST_NOEXEC:
        what = f"{folder} is mounted noexec: an engine or a hook of your own that unpacks programs there will not run"
        yield warning(what, "Set TMPDIR to a folder that allows it; without such an engine or hook nothing needs it")
    free = status.f_bavail * status.f_frsize
    if free < TEMPORARY_BYTES:
        what = f"{folder} has {free / 2**20:,.0f} MiB free: an engine or a hook of your own may need more"
        yield warning(what, f"Free space: df -h {quoted(folder)}; or set TMPDIR")


def memory(config: Config | None, total: int) -> Iterator[Finding]:
    """Whether all documents at once, and a converter's most beside them, fit into this machine."""
    if config is None:
        return
    needed = config.limits.in_flight_bytes + config.limits.converter_memory_bytes
    if needed > total:
        what = (
            f"there are {total / 2**20:,.0f} MiB of memory for convertd here; limits.in_flight and one"
            f" limits.converter_memory are {needed / 2**20:,.0f} MiB"
        )
        yield warning(what, "Lower limits.in_flight and limits.converter_memory in the configuration")


def memory_bytes(physical: int, groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """What this process may use: of all there is, the least that its control groups allow.

    A container sees its own group as the root, though `groups` may name the path that it has outside.
    """
    limits = (_number_in(path) for path in _limits(groups, root))
    return min((physical, *(limit for limit in limits if limit is not None)))


def _limits(groups: str, root: str) -> Iterator[str]:
    """The files in which a limit may stand, from the group of this process up to the root: of version 2, or 1."""
    try:
        with open(groups, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":
            top, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = os.path.join(root, "memory"), "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        yield from (os.path.join(top, *parts[:depth], name) for depth in range(len(parts), -1, -1))


def _number_in(path: str) -> int | None:
    """None where there is no such file, or "max" in it."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None

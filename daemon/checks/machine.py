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
    yield from memory(config)


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


def memory(config: Config | None) -> Iterator[Finding]:
    """Whether all documents at once, and a converter's most beside them, fit into this machine."""
    if config is None:
        return
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = config.limits.in_flight_bytes + config.limits.converter_memory_bytes
    if needed > total:
        what = (
            f"this machine has {total / 2**20:,.0f} MiB of memory; limits.in_flight and one limits.converter_memory"
            f" are {needed / 2**20:,.0f} MiB"
        )
        yield warning(what, "Lower limits.in_flight and limits.converter_memory in the configuration")

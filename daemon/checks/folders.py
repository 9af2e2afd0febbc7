"""One folder: whether it is there, what can be done in it, on what it lies and how much room there is."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress

from daemon.checks.base import Finding, ok, problem, warning
from daemon.checks.canary import Abilities, Failed, try_out
from daemon.checks.remedies import quoted, remedy_for
from daemon.files import filesystem_type, is_network_type
from daemon.ground import reach
from daemon.sinks.folder import CANARY_PREFIX
from daemon.values import format_size
from daemon.words import display

SKEW_SECONDS = 2.0
FEW_INODES = 10_000
LEAST_INODES = 100
LEAST_BYTES = 16 << 20


class Folder:
    """A folder of the configuration. `role` names it in findings, `daemon_runs` tells whether a daemon uses it now.

    `with_parents` says that the daemon makes missing parents too. Once it was `written`, `folds` says whether names
    that differ in case only are one there.
    """

    def __init__(self, role: str, path: str, *, daemon_runs: bool, with_parents: bool = False) -> None:
        self.path = path
        self.folds = False
        self._daemon_runs = daemon_runs
        self._with_parents = with_parents
        self.name = f"{role} {display(os.fsencode(path))}"

    def missing(self) -> Iterator[Finding]:
        """What there is to say of it where it is not a folder; nothing where it is one. To be asked first."""
        if os.path.isdir(reach(self.path)):
            return
        if os.path.lexists(self.path):
            yield problem(f"{self.name} is no folder", f"Move it away, or mend the path: ls -ld {quoted(self.path)}")
        elif self._daemon_runs:
            # Not to be made from here: the daemon would take an empty folder for the disk that is gone.
            yield problem(f"{self.name} is gone", f"Mount its disk, or make it anew: mkdir {quoted(self.path)}")
        else:
            yield self._would_be_made()

    def written(self, what_for: str, *, locked: bool = False) -> Iterator[Finding]:
        """Try out whatever the daemon does where it writes; `locked` says that it cannot do without locks."""
        try:
            abilities = try_out(os.fsencode(self.path))
        except Failed as failed:
            what = f"{self.name}: {failed.step} failed: {failed.error.strerror}"
            yield problem(f"{what}; it is to hold {what_for}", remedy_for(failed.error, self.path))
            return
        self.folds = abilities.folds
        works = f"{' locked,' if abilities.locks else ''}{' leased,' if abilities.leases else ''}"
        kind = self.filesystem() or "unknown file system"
        yield ok(f"{self.name}: a file was written, synced, read,{works} renamed and removed ({kind})")
        if not abilities.locks and locked:
            yield problem(f"{self.name}: locks do not work: two daemons could use it", "Give it a local disk")
        elif not abilities.locks:
            what = f"{self.name}: locks do not work ({kind})"
            yield warning(what, "Run no `convertd convert -o` into it while a daemon starts")
        yield from self._skewed(abilities)

    def read(self) -> Iterator[Finding]:
        """Only look into it."""
        try:
            with os.scandir(self.path) as entries:
                next(entries, None)
        except OSError as error:
            what = f"{self.name} cannot be read: {error.strerror}"
            yield problem(what, remedy_for(error, self.path))

    def room(self, needed_bytes: int, what_for: str) -> Iterator[Finding]:
        """Whether there is room for so much, and for names."""
        with suppress(OSError):
            status = os.statvfs(self.path)
            free = status.f_bavail * status.f_frsize
            if free < needed_bytes:
                level = problem if free < LEAST_BYTES else warning
                what = f"{self.name} has {_mib(free)} free; {what_for} needs {format_size(needed_bytes)}"
                yield level(what, f"Free space, or lower the limit: df -h {quoted(self.path)}")
            if status.f_files and status.f_favail < FEW_INODES:
                level = problem if status.f_favail < LEAST_INODES else warning
                what = f"{self.name} has room for {status.f_favail:,} more files only (inodes)"
                yield level(what, f"Remove files, or give it another disk: df -i {quoted(self.path)}")

    def filesystem(self) -> str:
        """The type of its file system; empty where that cannot be told."""
        try:
            return filesystem_type(os.fsencode(self.path))
        except OSError:
            return ""

    def is_remote(self) -> bool:
        return is_network_type(self.filesystem())

    def _would_be_made(self) -> Finding:
        """The daemon makes at its start what is missing beside an existing parent. Tried with another name, once it
        is known that its own can be one."""
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            return self._cannot_be_made(error, os.path.dirname(self.path))
        parent = os.path.dirname(self.path)
        while self._with_parents and not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        trial = os.path.join(os.fsencode(parent), CANARY_PREFIX + secrets.token_hex(8).encode())
        try:
            os.mkdir(trial, 0o700)
        except OSError as error:
            return self._cannot_be_made(error, parent)
        os.rmdir(trial)
        return ok(f"{self.name} is not there yet; convertd makes it at its start")

    def _cannot_be_made(self, error: OSError, parent: str) -> Finding:
        return problem(f"{self.name} is not there and cannot be made: {error.strerror}", remedy_for(error, parent))

    def _skewed(self, abilities: Abilities) -> Iterator[Finding]:
        if abs(abilities.skew_seconds) > SKEW_SECONDS:
            what = f"{self.name}: its server's clock differs from ours by {abilities.skew_seconds:+.0f} s"
            yield warning(what, "Synchronise both: timedatectl set-ntp true, here and there")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f}MiB"

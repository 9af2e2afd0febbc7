"""Puts the checks together: what is examined, in which order it is told."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

from daemon.checks import converting, inotify, machine, reporting, state, unit, watches
from daemon.checks.base import Finding, Group
from daemon.checks.running import side_by_side
from daemon.checks.subject import Subject


def examine(subject: Subject, live: dict[str, Any] | None) -> Generator[tuple[str, list[Finding]], None, None]:
    """The titles of the groups, each with what was found, as soon as that is known.

    `live` is what a running daemon says of itself. Close the iterator, or let the exception pass that interrupts it,
    and all that is under way ends without a trace.
    """
    yield "configuration", list(subject.findings)
    tally = inotify.Tally()
    for group, findings in side_by_side(list(_groups(subject, live, tally))):
        yield group.title, findings
    if found := list(inotify.check(tally)):
        yield "inotify", found


def _groups(subject: Subject, live: dict[str, Any] | None, tally: inotify.Tally) -> Iterator[Group]:
    config = subject.config
    yield Group("machine", partial(machine.check, config))
    if subject.state is not None:
        yield state.group(subject.state, config, live)
    if config is None:
        return
    served = live["watches"] if live else {}
    for watch in config.watches:
        yield watches.group(watch, config.limits, tally, served.get(watch.name))
    yield converting.group(config)
    if (installed := unit.group(config)) is not None:
        yield installed
    if reporting.wanted(config):
        yield reporting.group(config, daemon_runs=live is not None)

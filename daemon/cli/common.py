"""What several commands share: finding the configuration and the state_dir, and opening the job table."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from daemon import configfile, queries
from daemon.cli.output import is_utf8
from daemon.control import ask
from daemon.db import Connection, reader
from daemon.errors import AlreadyRunning, ConfigError, NotRunning, Unanswered, UsageError
from daemon.statedir import StateDir
from daemon.words import json_text, printable

if TYPE_CHECKING:  # what a configuration is made of takes longer to load than all else that `status` needs
    from daemon.config import Config, Watch

DEFAULT_STATE_DIR = ".convertd"
STATUS_TIMEOUT_SECONDS = 5.0
CHANGE_PATIENCE_SECONDS = 15.0
LOCK_WAIT_SECONDS = 1.0
HANDOVER_SECONDS = 0.2
"""So long the lock is free between two pieces: a daemon that starts asks for it every 50 ms."""
REFUSALS_SHOWN = 20
F = TypeVar("F", bound=Callable[..., Any])


class Place:
    """Where a command works: the configuration, if there is one, and the state_dir."""

    def __init__(self, load: Callable[[], Config | None] | None, state: StateDir) -> None:
        self._load = load
        self.state = state

    @cached_property
    def config(self) -> Config | None:
        """The configuration, read when it is first asked for; None where there is none, or one with mistakes."""
        return self._load() if self._load is not None else None

    @contextmanager
    def table(self) -> Iterator[Connection]:
        """The job table, to read. Raises UsageError, in a user's words, where there is none."""
        self.state.require_owner()
        try:
            with reader(self.state.database) as db:
                yield db
        except FileNotFoundError as error:
            raise UsageError(
                f"nothing has run with state_dir {self.state.path} yet",
                "Start the daemon (convertd run), or name the right --config or --state-dir.",
            ) from error

    def watches(self, db: Connection) -> list[Watch]:
        """The configured watches or, where two folders were given instead of a configuration, those that have run.

        Without its configuration nobody knows on which server a bucket is: watches of buckets are left out.
        """
        if self.config is not None:
            return list(self.config.watches)
        from daemon.config import for_folders

        rows = [row for row in queries.watches(db) if os.path.isabs(row[1])]
        return [for_folders(source, sink, self.state.path, name=name).watches[0] for name, source, sink in rows]

    def live(self) -> dict[str, Any] | None:
        """What the running daemon says of itself, None where none is running.

        One that does not answer is described as far as that goes.
        """
        try:
            return ask(self.state.socket, "status", timeout_seconds=STATUS_TIMEOUT_SECONDS)
        except NotRunning:
            return None
        except Unanswered:
            unknown: dict[str, Any] = {
                "version": None,
                "uptime_seconds": None,
                "documents_per_second": 0.0,
                "watches": {},
            }
            return {"pid": self.state.holder(), "state": "not answering", **unknown}


def place_options(function: F) -> F:
    """`--config` and `--state-dir`, as keyword arguments for `locate`."""
    function = click.option(
        "--state-dir", type=click.Path(file_okay=False), help="Where the state lies if there is no configuration."
    )(function)
    return click.option(
        "--config",
        "config_path",
        type=click.Path(dir_okay=False),
        help="The configuration file [default: $CONVERTD_CONFIG, ./convertd.toml, /etc/convertd/config.toml].",
    )(function)


def locate(config_path: str | None, state_dir: str | None) -> Place:
    """Find what the options mean. An explicit --state-dir goes before a configuration that merely lies around."""
    if state_dir is not None and config_path is None:
        return Place(None, StateDir(os.path.abspath(state_dir)))
    found = configfile.find(config_path, os.environ)
    if found is None:
        return Place(None, StateDir(os.path.abspath(DEFAULT_STATE_DIR)))
    named = configfile.state_dir_of(found)
    if named is not None and os.path.isdir(named):
        return Place(partial(_load_if_sound, found), StateDir(named))
    config = _load(found)
    return Place(lambda: config, StateDir(config.state_dir))


def _load(path: str) -> Config:
    from daemon import config as configuration

    return configuration.load(path)


def _load_if_sound(path: str) -> Config | None:
    """Looking at a daemon must work just when its configuration, or a disk that it names, is broken."""
    try:
        return _load(path)
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(f"warning: {mistake}", err=True)
        return None


def change(place: Place, command: str, **request: Any) -> dict[str, Any]:
    """Have the daemon carry out an operation or, when it is down, do so here under its lock.

    What takes long is carried out piece by piece; the answers are added up.
    """
    place.state.require_owner()
    answer: dict[str, Any] = {}
    rest: dict[str, Any] | None = request
    while rest is not None:
        piece = _change(place, command, rest)
        rest = piece.pop("rest", None)
        answer = {key: answer[key] + value if key in answer else value for key, value in piece.items()}
    return answer


def _change(place: Place, command: str, request: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + CHANGE_PATIENCE_SECONDS
    while True:
        try:
            return ask(place.state.socket, command, **request)
        except NotRunning:
            pass
        try:
            answer = _change_here(place, command, request)
        except AlreadyRunning:  # a daemon that is about to answer, or about to be gone
            if time.monotonic() > deadline:
                raise
            continue
        if "rest" in answer:
            time.sleep(HANDOVER_SECONDS)
        return answer


def _change_here(place: Place, command: str, request: dict[str, Any]) -> dict[str, Any]:
    from daemon.db import Readers, Writer  # with all of what follows, too slow for commands that only look
    from daemon.intake import Intake
    from daemon.jobs import JobTable
    from daemon.operations import Down, Operations
    from daemon.switches import Switches

    with place.table():
        pass
    with place.state.lock(wait_seconds=LOCK_WAIT_SECONDS):
        writer = Writer(place.state.database)
        writer.start()
        try:
            table = JobTable(writer, Readers(place.state.database))
            switches = Switches(writer, Readers(place.state.database))
            intake = Intake(place.state.submitted)
            operations = Operations(
                place.state.database, table, switches, lambda: _sources(place), Down(), intake.remove
            )
            return operations.handlers()[command](request)
        finally:
            writer.close()


def _sources(place: Place) -> dict[str, Any]:
    from daemon import sources
    from daemon.sources.base import Surroundings

    with place.table() as db:
        return {watch.name: sources.build(watch, Surroundings.for_looking()) for watch in place.watches(db)}


def tell_refused(what: str, reasons: list[str]) -> None:
    """Say on stderr what was not done and why, of many the first, and end with exit code 1; return if there is none."""
    for reason in reasons[:REFUSALS_SHOWN]:
        click.echo(f"{what}: {reason}", err=True)
    if len(reasons) > REFUSALS_SHOWN:
        click.echo(f"{what}: and {len(reasons) - REFUSALS_SHOWN:,} more", err=True)
    if reasons:
        raise SystemExit(1)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """One JSON document on stdout, whole and without a character that terminals or readers of lines act on."""
    click.echo(json_text(value, indent=indent, ascii_only=not is_utf8(sys.stdout)))


def batch_command(name: str, *options: str) -> str:
    """`convertd batch` for this name, fit to be pasted: whoever may write to an inbox may have named the batch."""
    import shlex  # few commands suggest one

    end_of_options = ["--"] if name.startswith("-") else []
    return shlex.join(["convertd", "batch", *options, *end_of_options, printable(name)])


def clock_time(timestamp: float | None) -> str:
    """A wall-clock time for people, in local time."""
    return "-" if timestamp is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))

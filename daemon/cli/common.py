"""What several commands share: finding the configuration and the state_dir, and opening the job table."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import click

from daemon import config as configuration
from daemon import queries
from daemon.config import Config, Watch, for_folders
from daemon.control import ask
from daemon.db import Connection, Readers, Writer, reader
from daemon.errors import ConfigError, NotRunning, Unanswered, UsageError
from daemon.jobs import JobTable
from daemon.operations import Down, Operations
from daemon.statedir import StateDir
from daemon.switches import Switches

DEFAULT_STATE_DIR = ".convertd"
STATUS_TIMEOUT_SECONDS = 5.0
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Place:
    """Where a command works: the configuration, if there is one, and the state_dir."""

    config: Config | None
    state: StateDir

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
        rows = [row for row in queries.watches(db) if os.path.isabs(row[1])]
        pairs = [(name, for_folders(source, sink, self.state.path)) for name, source, sink in rows]
        return [replace(config.watches[0], name=name) for name, config in pairs]

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
    found = configuration.find(config_path, os.environ)
    if found is None:
        return Place(None, StateDir(os.path.abspath(DEFAULT_STATE_DIR)))
    try:
        config = configuration.load(found)
    except ConfigError as error:
        return _despite(found, error)
    return Place(config, StateDir(config.state_dir))


def _despite(path: str, error: ConfigError) -> Place:
    """Looking at a daemon must work just when its configuration, or a disk that it names, is broken."""
    state_dir = configuration.state_dir_of(path)
    if state_dir is None or not os.path.isdir(state_dir):
        raise error
    for mistake in error.mistakes:
        click.echo(f"warning: {mistake}", err=True)
    return Place(None, StateDir(state_dir))


def change(place: Place, command: str, **request: Any) -> dict[str, Any]:
    """Have the daemon carry out an operation or, when it is down, do so here under its lock."""
    place.state.require_owner()
    try:
        return ask(place.state.socket, command, **request)
    except NotRunning:
        pass
    with place.table():
        pass
    with place.state.lock(wait_seconds=5.0):
        writer = Writer(place.state.database)
        writer.start()
        try:
            table = JobTable(writer, Readers(place.state.database))
            switches = Switches(writer, Readers(place.state.database))
            operations = Operations(place.state.database, table, switches, partial(_sources, place), Down())
            return operations.handlers()[command](request)
        finally:
            writer.close()


def _sources(place: Place) -> dict[str, Any]:
    from daemon import sources
    from daemon.sources.base import Surroundings

    with place.table() as db:
        return {watch.name: sources.build(watch, Surroundings.for_looking()) for watch in place.watches(db)}


def print_json(value: Any, *, indent: int | None = None) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=indent))


def clock_time(timestamp: float | None) -> str:
    """A wall-clock time for people, in local time."""
    return "-" if timestamp is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))

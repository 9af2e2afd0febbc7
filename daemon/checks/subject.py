"""What is to be examined: the configuration with all its mistakes, and the state_dir, as far as they can be told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from daemon import app, configfile, queries
from daemon import config as configuration
from daemon.checks.base import Finding, ok, problem, warning
from daemon.checks.remedies import quoted
from daemon.config import Config
from daemon.db import reader
from daemon.errors import ConfigError
from daemon.statedir import StateDir


class Subject(NamedTuple):
    """`findings` are about the configuration itself. Without one there is nothing but this machine to be examined."""

    config: Config | None
    state: StateDir | None
    findings: tuple[Finding, ...]


def subject(config_path: str | None, state_dir: str | None, environ: Mapping[str, str]) -> Subject:
    """What the options of the command mean. Raises ConfigError where a file is named that does not exist."""
    found = configfile.find(config_path, environ) if config_path is not None or state_dir is None else None
    if found is not None:
        return _of_file(found)
    state = StateDir(os.path.abspath(state_dir or configuration.DEFAULT_STATE_DIR))
    if os.path.exists(state.database):
        return _of_folders(state)
    nothing = warning(
        f"no configuration found (--config, ${configfile.FILE_VARIABLE}, ./{configfile.FILE_NAME},"
        f" {configfile.SYSTEM_FILE}), and nothing has run here: only this machine is examined",
        "convertd run INBOX OUTBOX needs none; else start from config.example.toml",
    )
    return Subject(configuration.defaults()._replace(watches=()), None, (nothing,))


def _of_file(path: str) -> Subject:
    try:
        config = configuration.load(path, checks=[app.installed])
    except ConfigError as error:
        mistakes = tuple(_mistake(f"Edit {quoted(path)}", mistake) for mistake in error.mistakes)
        return _despite(path)._replace(findings=mistakes)
    watches = "1 watch" if len(config.watches) == 1 else f"{len(config.watches)} watches"
    return Subject(config, StateDir(config.state_dir), (ok(f"{path}: {watches}, no mistakes"),))


def _despite(path: str) -> Subject:
    """What can be examined although there are mistakes: all of it where they are what this machine lacks.

    Else a folder counts as the state_dir only where it already is one: to name another may be one of the mistakes.
    """
    try:
        config = configuration.load(path)
    except ConfigError:
        named = configfile.state_dir_of(path)
        state = StateDir(named) if named is not None else None
        return Subject(None, state if state and os.path.exists(state.database) else None, ())
    return Subject(config, StateDir(config.state_dir), ())


def _of_folders(state: StateDir) -> Subject:
    """What `run INBOX OUTBOX` has used with this state_dir."""
    watches = []
    findings = []
    with reader(state.database) as db:
        pairs = [row for row in queries.watches(db) if os.path.isabs(row[1]) and os.path.isabs(row[2])]
    for name, source, sink in pairs:
        try:
            config = configuration.for_folders(source, sink, state.path, name=name, checks=[app.installed])
        except ConfigError as error:
            findings += [_mistake("Run with other folders", mistake) for mistake in error.mistakes]
        else:
            watches.append(config.watches[0])
    findings.append(ok(f"no configuration; what has run with {state.path} is examined"))
    config = configuration.defaults()._replace(state_dir=state.path, watches=tuple(watches))
    return Subject(config, state, tuple(findings))


def _mistake(remedy: str, mistake: str) -> Finding:
    what, separator, allowed = mistake.rpartition("; allowed: ")
    return problem(what, f"{remedy}; allowed: {allowed}") if separator else problem(mistake, remedy)

"""`convertd run`: the daemon in the foreground."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress

import click

from daemon import app, logs
from daemon import config as configuration
from daemon.cli.common import DEFAULT_STATE_DIR
from daemon.config import Config
from daemon.errors import UsageError
from daemon.supervisor import Supervisor


@click.command("run")
@click.argument("folders", nargs=-1, type=click.Path(file_okay=False), metavar="[INBOX OUTBOX]")
@click.option("--once", is_flag=True, help="Convert what is there, then end: exit code 0, or 1 if any job failed.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False),
    help="The configuration file [default: $CONVERTD_CONFIG, ./convertd.toml, /etc/convertd/config.toml].",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False),
    help=f"With INBOX OUTBOX: where to keep state [{DEFAULT_STATE_DIR}].",
)
def command(folders: tuple[str, ...], once: bool, config_path: str | None, state_dir: str | None) -> None:
    """Run the daemon in the foreground; with two folders no configuration file is needed."""
    early: list[int] = []  # of a SIGHUP that comes before anybody could heed it
    signal.signal(signal.SIGHUP, lambda number, _: early.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    config = _configuration(folders, config_path, state_dir)
    log = logs.build(config.log.level, config.log.format)
    with suppress(ValueError, OSError):  # no stderr
        faulthandler.enable()  # where every thread stood when a watchdog ended it
    with ExitStack() as stack:
        supervisor = stack.enter_context(app.running(config, log, once=once))
        _listen_to_signals(supervisor)
        if early:
            supervisor.hang_up()
        tick = stack.enter_context(_progress(supervisor)) if once and sys.stderr.isatty() else lambda: None
        exit_code = supervisor.run(tick)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)  # threads that a stop could not end must not keep the process


def _configuration(folders: tuple[str, ...], config_path: str | None, state_dir: str | None) -> Config:
    if folders:
        if len(folders) != 2 or config_path is not None:
            raise UsageError("run takes either two folders, INBOX and OUTBOX, or a --config", "convertd run --help")
        return configuration.for_folders(*folders, state_dir or DEFAULT_STATE_DIR, checks=[app.installed])
    if state_dir is not None:
        raise UsageError("--state-dir goes with INBOX OUTBOX; a configuration has its own state_dir", "")
    found = configuration.find(config_path, os.environ)
    if found is None:
        raise UsageError("no configuration found", "Name two folders: convertd run INBOX OUTBOX; or give a --config.")
    return configuration.load(found, checks=[app.installed])


def _listen_to_signals(supervisor: Supervisor) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    signal.signal(signal.SIGHUP, lambda *_: supervisor.hang_up())


class _progress:
    """A progress bar on the terminal while `--once` drains."""

    def __init__(self, supervisor: Supervisor) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._supervisor = supervisor
        self._progress = Progress(
            TextColumn("converting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Callable[[], None]:
        self._progress.start()
        return self._tick

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def _tick(self) -> None:
        done, total = self._supervisor.progress()
        self._progress.update(self._task, completed=done, total=total or None)

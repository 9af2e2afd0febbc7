"""The commands. This package only reads arguments, prints and chooses exit codes; a command is imported when used."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from importlib import import_module

import click

from daemon import __version__
from daemon.cli import output
from daemon.errors import ConfigError, ConvertdError
from daemon.words import printable

COMMANDS = (
    "run",
    "convert",
    "status",
    "jobs",
    "why",
    "retry",
    "cancel",
    "pause",
    "resume",
    "submit",
    "batch",
    "plan",
    "doctor",
    "prune",
    "install",
)


class LazyGroup(click.Group):
    """Imports the module of a command only when that command is asked for: `status` must answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"daemon.cli.{cmd_name}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="convertd")
def cli() -> None:
    """Turn folders of documents into Markdown.

    Start with:  convertd run INBOX OUTBOX

    Exit codes: 0 done, 1 something failed, 2 wrong use or configuration, 3 the daemon is not running,
    4 another daemon holds the state_dir.
    """


def main() -> None:
    """The console script."""
    if sys.argv[1:2] == ["run"]:  # which takes a while to load: it heeds then what has come meanwhile
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        _begin_anew()
    try:
        with output.watched():
            cli(prog_name="convertd")
    except ConfigError as error:
        _say(*error.mistakes)
        sys.exit(error.exit_code)
    except ConvertdError as error:
        _say(f"convertd: {error.message}", *([f"  → {error.hint}"] if error.hint else []))
        sys.exit(error.exit_code)


def _begin_anew() -> None:
    """For what runs for months. (What it takes to load is too much for a command that only looks.)"""
    from daemon.memory import without_thread_caches

    without_thread_caches()


def _say(*lines: str) -> None:
    for line in lines:
        with suppress(OSError):  # nobody can read it; the exit code still tells
            click.echo(printable(line), err=True)

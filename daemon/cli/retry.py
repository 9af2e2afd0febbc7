"""`convertd retry`: convert again."""

from __future__ import annotations

import re

import click

from daemon.cli.common import change, locate, place_options, tell_refused
from daemon.errors import UsageError

ENGINE = re.compile(r"([a-z0-9_-]+)(?:<(.+))?")


@click.command("retry")
@click.argument("jobs", type=click.IntRange(1, 2**63 - 1), nargs=-1, metavar="[JOB]…")
@place_options
@click.option("--failed", is_flag=True, help="All failed jobs.")
@click.option("--engine", metavar="NAME[<VERSION]", help="All that this engine, or an older one of it, has converted.")
@click.option("--name", "watch", help="With --failed or --engine: only those of this watch.")
def command(
    jobs: tuple[int, ...],
    config_path: str | None,
    state_dir: str | None,
    failed: bool,
    engine: str | None,
    watch: str | None,
) -> None:
    """Convert finished jobs again: by their numbers, all that failed, or all that an engine has made."""
    if sum((bool(jobs), failed, engine is not None)) != 1:
        raise UsageError(
            "name the jobs to retry, or --failed, or --engine", "convertd jobs --state failed lists those that failed."
        )
    if watch is not None and jobs:
        raise UsageError("--name goes with --failed or --engine", "")
    name, below = _engine(engine)
    result = change(
        locate(config_path, state_dir), "retry", ids=list(jobs), failed=failed, engine=name, below=below, watch=watch
    )
    click.echo(f"{result['retried']} queued again")
    if result["parked"]:
        click.echo(f"{result['parked']} of them belong to a watch that is not configured, and wait until it is")
    tell_refused("not retried", result["refused"])


def _engine(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    found = ENGINE.fullmatch(text)
    if found is None:
        raise UsageError(f"--engine {text} is not understood", 'Write --engine xberg, or --engine "xberg<1.4".')
    return found[1], found[2]

"""`convertd retry`: convert again."""

from __future__ import annotations

import click

from daemon.cli.common import change, locate, place_options
from daemon.errors import UsageError


@click.command("retry")
@click.argument("jobs", type=click.IntRange(1, 2**63 - 1), nargs=-1, metavar="[JOB]…")
@place_options
@click.option("--failed", is_flag=True, help="All failed jobs.")
@click.option("--name", "watch", help="With --failed: only those of this watch.")
def command(
    jobs: tuple[int, ...], config_path: str | None, state_dir: str | None, failed: bool, watch: str | None
) -> None:
    """Convert finished jobs again, by their numbers or all that failed."""
    if bool(jobs) == failed:
        raise UsageError("name the jobs to retry, or --failed", "convertd jobs --state failed lists them.")
    if watch is not None and not failed:
        raise UsageError("--name goes with --failed", "")
    result = change(locate(config_path, state_dir), "retry", ids=list(jobs), failed=failed, watch=watch)
    click.echo(f"{result['retried']} queued again")
    if result["parked"]:
        click.echo(f"{result['parked']} of them belong to a watch that is not configured, and wait until it is")
    for reason in result["refused"]:
        click.echo(f"not retried: {reason}", err=True)
    if result["refused"]:
        raise SystemExit(1)

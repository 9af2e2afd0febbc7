"""`convertd cancel`: call jobs off."""

from __future__ import annotations

import click

from daemon.cli.common import change, locate, place_options, tell_refused


@click.command("cancel")
@click.argument("jobs", type=click.IntRange(1, 2**63 - 1), nargs=-1, required=True, metavar="JOB…")
@place_options
def command(jobs: tuple[int, ...], config_path: str | None, state_dir: str | None) -> None:
    """Call jobs off, by their numbers. A converter at work on one is ended; sources and older outputs stay."""
    result = change(locate(config_path, state_dir), "cancel", ids=list(jobs))
    click.echo(f"{result['cancelled']} cancelled")
    tell_refused("not cancelled", result["refused"])

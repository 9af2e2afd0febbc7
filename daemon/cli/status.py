"""`convertd status`: the daemon, its watches and the counts."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli import notes
from daemon.cli.common import locate, place_options, print_json
from daemon.cli.gathering import gather


@click.command("status")
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch, one a line.")
@click.option("--watch", "follow", is_flag=True, help="Go on showing it, with progress and what is at work, to Ctrl-C.")
def command(config_path: str | None, state_dir: str | None, as_json: bool, follow: bool) -> None:
    """Show the daemon, its watches, the counts of jobs, the oldest one waiting and the rate."""
    place = locate(config_path, state_dir)
    if follow:
        from daemon.cli import live  # nobody else should pay for what draws

        live.follow(place, as_json=as_json)
        return
    status = gather(place)
    if as_json:
        print_json(status, indent=2)
    else:
        _print(status)


def _print(status: dict[str, Any]) -> None:
    daemon = status["daemon"]
    if daemon["running"] and daemon["version"] is None:
        click.echo(f"convertd runs as pid {daemon['pid']} but does not answer (stopped, or its disk hangs)")
    elif daemon["running"]:
        click.echo(f"convertd {daemon['version']}, pid {daemon['pid']}, {daemon['state']}")
        click.echo(f"up {daemon['uptime_seconds']:.0f} s, {status['documents_per_second']:.1f} documents/s")
    else:
        click.echo("convertd is not running (start it: convertd run)")
    click.echo("  ".join(f"{state} {number}" for state, number in status["jobs"].items()))
    if status["oldest_pending_seconds"] is not None:
        click.echo(f"the oldest pending job has waited {status['oldest_pending_seconds']:.0f} s")
    for line in notes.troubles(status):
        click.echo(line)
    for watch in status["watches"]:
        click.echo(f"\n{watch['name']}: {watch['state']}   {watch['source']} → {watch['sink']}")
        click.echo("  " + "  ".join(f"{state} {number}" for state, number in watch["jobs"].items()))
        if watch["error"]:
            click.echo(f"  ! {watch['error']}")

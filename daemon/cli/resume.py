"""`convertd resume`: go on after `convertd pause`."""

from __future__ import annotations

import click

from daemon.cli.common import change, locate, place_options


@click.command("resume")
@click.argument("watch", required=False)
@place_options
def command(watch: str | None, config_path: str | None, state_dir: str | None) -> None:
    """Go on with all work, or with that of one WATCH."""
    paused = change(locate(config_path, state_dir), "resume", watch=watch)
    if paused["all"]:
        click.echo(f"the pause of {watch} is lifted, but everything is paused; go on with: convertd resume")
    else:
        click.echo(f"{watch or 'everything'} goes on")
    others = [name for name in paused["watches"] if name != watch]
    if others:
        click.echo(f"still paused: {', '.join(others)}")

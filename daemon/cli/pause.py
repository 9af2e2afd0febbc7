"""`convertd pause`: hold work back."""

from __future__ import annotations

import click

from daemon.cli.common import change, locate, place_options


@click.command("pause")
@click.argument("watch", required=False)
@place_options
def command(watch: str | None, config_path: str | None, state_dir: str | None) -> None:
    """Hold all work back, or that of one WATCH.

    Files are still found and queued; what is running is brought to its end. Lasts until `convertd resume`, restarts
    included.
    """
    change(locate(config_path, state_dir), "pause", watch=watch)
    click.echo(f"{watch or 'everything'} is paused; go on with: convertd resume{f' {watch}' if watch else ''}")

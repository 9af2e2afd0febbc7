"""`convertd install`: make it a service."""

from __future__ import annotations

import os

import click

from daemon import app, install
from daemon import config as configuration
from daemon.errors import UsageError


@click.command("install")
@click.option("--user", "for_user", is_flag=True, help="For your own service manager, without root.")
@click.option("--dry-run", is_flag=True, help="Print the unit, change nothing.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False),
    help="The configuration file [default: $CONVERTD_CONFIG, ./convertd.toml, /etc/convertd/config.toml].",
)
def command(for_user: bool, dry_run: bool, config_path: str | None) -> None:
    """Write the systemd unit for a configuration, with exactly the paths that it needs.

    To be repeated when the configuration gets other folders. Starts nothing; says what to run next.
    """
    found = configuration.find(config_path, os.environ)
    if found is None:
        raise UsageError("no configuration found", "A service needs one: write a file, and name it with --config.")
    plan = install.plan(configuration.load(found, checks=[app.installed]), for_user=for_user)
    if dry_run:
        click.echo(plan.text, nl=False)
    else:
        written = install.carry_out(plan)
        for path in plan.files:
            click.echo(f"{path}: {'written' if path in written else 'unchanged'}")
    for line in _explanation(plan):
        click.echo(line, err=dry_run)


def _explanation(plan: install.Plan) -> list[str]:
    score = install.exposure(plan.text)
    lines = [f"exposure: {score} (of systemd-analyze security; 0 is best, 10 worst)"] if score else []
    lines += [f"note: {note}" for note in plan.notes]
    return [*lines, "now run:", *(f"  {command}" for command in plan.commands)]

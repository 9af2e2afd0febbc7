"""`convertd prune`: drop old finished jobs from the table."""

from __future__ import annotations

import click

from daemon.cli.common import change, locate, place_options, tell_refused


class Age(click.ParamType[float]):
    """A time span like 90d, 12h, 30m, 10s, in seconds."""

    name = "age"
    _units = {"d": 86400, "h": 3600, "m": 60, "s": 1}  # noqa: RUF012

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        unit = self._units.get(value[-1:])
        if unit is None or not value[:-1].isdigit():
            self.fail(f"{value!r} is not a time span such as 90d, 12h, 30m or 10s", param, ctx)
        return float(int(value[:-1]) * unit)


@click.command("prune")
@place_options
@click.option("--older-than", type=Age(), default="90d", show_default=True, help="Only jobs that ended before that.")
@click.option("--keep-failed", is_flag=True, help="Keep the failed ones.")
def command(config_path: str | None, state_dir: str | None, older_than: float, keep_failed: bool) -> None:
    """Drop finished jobs from the table.

    Outputs are not touched, and what keeps a source that still exists from being converted again stays. Where a folder
    is missing or empty, as if its disk were not mounted, all of that stays, and the exit code is 1.
    """
    place = locate(config_path, state_dir)
    dropped = change(place, "prune", older_than_seconds=older_than, keep_failed=keep_failed)
    forgotten = change(place, "forget")
    click.echo(f"{dropped['jobs']} jobs dropped, {forgotten['documents']} vanished documents forgotten")
    tell_refused("not forgotten", forgotten["kept"])

"""`convertd jobs`: a row a job, newest first."""

from __future__ import annotations

from typing import Any

import click

from daemon import queries
from daemon.cli.common import clock_time, locate, place_options, print_json
from daemon.model import State, printable
from daemon.results import rfc3339

KEYS = [
    "id",
    "watch",
    "source",
    "version",
    "state",
    "stage",
    "priority",
    "attempts",
    "error",
    "output",
    "engine",
    "pages",
    "size_bytes",
    "discovered_at",
    "started_at",
    "finished_at",
]
TIMES = ("discovered_at", "started_at", "finished_at")


@click.command("jobs")
@place_options
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only jobs in this state.")
@click.option("--name", "watch", help="Only jobs of this watch.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(
    config_path: str | None, state_dir: str | None, state: str | None, watch: str | None, limit: int, as_json: bool
) -> None:
    """List jobs, newest first."""
    with locate(config_path, state_dir).table() as db:
        for job in queries.listing(db, state=state, watch=watch, limit=limit):
            if as_json:
                print_json(_record(job))
            else:
                _print(job)


def _record(job: dict[str, Any]) -> dict[str, Any]:
    record = {key: job[key] for key in KEYS}
    record["source"] = job["source_bytes"].decode("utf-8", "backslashreplace")  # as it is: a path that opens
    for key in TIMES:
        record[key] = None if job[key] is None else rfc3339(job[key])
    return record


def _print(job: dict[str, Any]) -> None:
    what = job["stage"] if job["state"] == State.PROCESSING and job["stage"] else job["state"]
    when = clock_time(job["finished_at"] or job["started_at"] or job["discovered_at"])
    note = f"   {job['error_kind']}: {printable(job['error'])}" if job["error"] else ""
    click.echo(f"{job['id']:>7}  {when}  {what:<10}  {job['watch']}  {job['source']}{note}")

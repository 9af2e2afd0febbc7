"""`convertd status`: the daemon, its watches and the counts."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from daemon import queries, switches
from daemon.cli import notes
from daemon.cli.common import Place, locate, place_options, print_json
from daemon.db import Connection
from daemon.words import display


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


def gather(place: Place) -> dict[str, Any]:
    """The status as the JSON form has it. Works with the daemon up or down."""
    live = place.live()
    with place.table() as db:
        return assemble(place, db, live)


def assemble(place: Place, db: Connection, live: dict[str, Any] | None) -> dict[str, Any]:
    """The status from the job table and what the daemon says of itself, None where none is running."""
    counts = queries.counts(db)
    oldest = queries.oldest_pending(db)
    paused = switches.read(db.execute)
    return {
        "daemon": _daemon(live),
        "jobs": _sum(counts),
        "watches": [
            {
                "name": name,
                "source": display(os.fsencode(source)),
                "sink": display(os.fsencode(sink)),
                **_condition(live, name, paused),
                "jobs": _four(counts.get(name, {})),
            }
            for name, source, sink in _watches(place, db, live)
        ],
        "oldest_pending_seconds": None if oldest is None else round(max(0.0, time.time() - oldest), 3),
        "documents_per_second": live["documents_per_second"] if live else 0.0,
        **notes.notify(db, live),
    }


def _daemon(live: dict[str, Any] | None) -> dict[str, Any]:
    if live is None:
        return {"running": False, "pid": None, "version": None, "uptime_seconds": None, "state": "stopped"}
    return {"running": True, **{key: live[key] for key in ("pid", "version", "uptime_seconds", "state")}}


def _watches(place: Place, db: Connection, live: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Name, source and sink of the watches that the daemon serves or, where none answers, that are configured."""
    known = queries.watches(db)
    if live and live["watches"]:
        places = {name: (source, sink) for name, source, sink in known}
        return [(name, *places[name]) for name in live["watches"] if name in places]
    if place.config is not None:
        return [(watch.name, watch.source, watch.sink) for watch in place.config.watches]
    return known


def _condition(live: dict[str, Any] | None, watch: str, paused: switches.Paused) -> dict[str, Any]:
    if live and watch in live["watches"]:
        return dict(live["watches"][watch])
    reason = paused.reason(watch)
    return {"state": "paused" if reason else "stopped", "error": reason}


def _four(counts: dict[str, int]) -> dict[str, int]:
    return {state.value: counts.get(state.value, 0) for state in queries.FINAL_AND_OPEN}


def _sum(counts: dict[str, dict[str, int]]) -> dict[str, int]:
    return {state.value: sum(watch[state.value] for watch in counts.values()) for state in queries.FINAL_AND_OPEN}


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

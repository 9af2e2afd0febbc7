"""The status, from the job table and from what the daemon says of itself."""

from __future__ import annotations

import os
import time
from typing import Any

from daemon import queries, switches
from daemon.cli import notes
from daemon.cli.common import Place
from daemon.db import Connection
from daemon.words import display


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

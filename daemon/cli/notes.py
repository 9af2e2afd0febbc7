"""What `status` says of notifications: who is to be told, how much waits, and what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from daemon import queries
from daemon.db import Connection
from daemon.words import printable

UNKNOWN = {"address": None, "error": None, "failures": 0, "again_in_seconds": None}


def notify(db: Connection, live: Mapping[str, Any] | None) -> dict[str, Any]:
    """The key `notify` of the JSON form, with each target; nothing where nobody is told.

    Without a daemon nobody knows how the last attempt went.
    """
    conditions = (live or {}).get("notify", {})
    found = {}
    for name, target in queries.outbox(db).items():
        since = target["waiting_since"]
        found[name] = {
            **conditions.get(name, UNKNOWN),
            "waiting": target["waiting"],
            "oldest_seconds": None if since is None else round(max(0.0, time.time() - since), 3),
            "dropped": target["dropped"],
        }
    return {"notify": found} if found else {}


def troubles(status: Mapping[str, Any]) -> Iterator[str]:
    """A line for each target that something is wrong with."""
    for name, target in status.get("notify", {}).items():
        parts = [part for part in (_failing(target), _dropped(target)) if part]
        if parts:
            whom = f"{name} {target['address']}" if target["address"] else name
            yield printable(f"! notify {whom}: {'; '.join(parts)}")


def news(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """For each target what is wrong with it, nothing where nothing is; without what changes from second to second.

    Not for one whose state nobody knows: the daemon is down, or has just started and not tried yet what waits.
    """
    for name, target in status.get("notify", {}).items():
        if target["address"] is None or (target["waiting"] and not target["error"]):
            continue
        yield name, printable("; ".join(part for part in (target["error"], _dropped(target)) if part))


def _failing(target: Mapping[str, Any]) -> str:
    if not target["error"]:
        return ""
    wait = f"{target['waiting']:,} event{' waits' if target['waiting'] == 1 else 's wait'}"
    since = f", the first for {target['oldest_seconds']:.0f} s" if target["oldest_seconds"] is not None else ""
    return f"{target['error']}; {wait}{since}; tried again in {target['again_in_seconds'] or 0:.0f} s"


def _dropped(target: Mapping[str, Any]) -> str:
    return f"{target['dropped']:,} events were dropped, as too many waited" if target["dropped"] else ""

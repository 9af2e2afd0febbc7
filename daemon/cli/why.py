"""`convertd why`: the whole story of one document or job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from daemon import buckets, queries, switches
from daemon.cli.common import Place, clock_time, locate, place_options
from daemon.config import Watch
from daemon.db import Connection
from daemon.errors import UsageError
from daemon.ground import LONG_SECONDS, Ground, Patience
from daemon.model import State, display, printable


@click.command("why")
@click.argument("what", metavar="PATH|URL|JOB")
@place_options
def command(what: str, config_path: str | None, state_dir: str | None) -> None:
    """Tell what happened to a document: which rule took or refused it, which attempts, which error, which output."""
    place = locate(config_path, state_dir)
    with place.table() as db:
        paused = switches.read(db.execute)
        lines = list(_of_job(db, int(what)) if _is_job(what) else _of_document(place, db, what))
    for line in lines:
        click.echo(line)
    for line in _conditions(place, paused):
        click.echo(line)


def _is_job(what: str) -> bool:
    return what.isdecimal() and what.isascii() and len(what) <= 18 and not os.path.lexists(what)


def _of_job(db: Connection, job_id: int) -> Iterator[str]:
    job = queries.job(db, job_id)
    if job is None:
        raise UsageError(f"there is no job {job_id}", "convertd jobs lists them; old ones may have been pruned.")
    yield f"{job['source']} (watch {job['watch']})"
    yield from _story(job)


def _of_document(place: Place, db: Connection, what: str) -> Iterator[str]:
    where, kind = (what, "prefix") if buckets.is_url(what) else (os.path.abspath(what), "folder")
    ground = Ground("/", Patience(LONG_SECONDS))
    located = [(watch, _source_of(watch, where, ground)) for watch in place.watches(db)]
    matches = [(watch, source) for watch, source in located if source is not None]
    if not matches:
        raise UsageError(
            f"{display(os.fsencode(where))} lies in no watched {kind}", "convertd status lists the watches."
        )
    for watch, source in matches:
        yield f"{display(source)} (watch {watch.name})"
        yield from _rules(watch, source)
        jobs = queries.history(db, watch.name, source)
        for job in jobs:
            yield from _story(job)
        if not jobs:
            known = queries.known(db, watch.name, source)
            yield "  converted earlier; its jobs have been pruned" if known else "  never queued"


def _source_of(watch: Watch, where: str, ground: Ground) -> bytes | None:
    """The watch's own name for the document at this path or URL; None where it does not lie in its source."""
    root = watch.prefix or watch.source
    if buckets.is_url(where) != buckets.is_url(root):
        return None
    return _below_prefix(where, root) if buckets.is_url(where) else _below(where, root, ground)


def _below_prefix(url: str, prefix_url: str) -> bytes | None:
    """The key behind the prefix; None outside. A key is taken as it is: it may have any parts and characters."""
    bucket, _, key = url.removeprefix(buckets.S3).partition("/")
    prefix = buckets.Prefix.parse(prefix_url)
    relative = prefix.relative(key) if bucket == prefix.bucket else None
    return None if relative is None else os.fsencode(relative)


def _below(path: str, folder: str, ground: Ground) -> bytes | None:
    """The path relative to `folder`, by whatever links both are named; None outside. Its last part may be a link."""
    real = os.path.join(ground.real(os.path.dirname(path)), os.path.basename(path))
    root = ground.real(folder)
    inside = os.path.commonpath([real, root]) == root and real != root
    return os.fsencode(os.path.relpath(real, root)) if inside else None


def _rules(watch: Watch, source: bytes) -> Iterator[str]:
    from daemon import sources
    from daemon.sources.base import Surroundings

    for sentence in sources.build(watch, Surroundings.for_looking()).explain(source):
        yield f"  {sentence}"


def _story(job: dict[str, Any]) -> Iterator[str]:
    state, stage = job["state"], f" ({job['stage']})" if job["stage"] else ""
    yield f"  job {job['id']}: {state}{stage}, version {job['version']}, {job['size_bytes']:,} bytes"
    yield f"    discovered {clock_time(job['discovered_at'])}, started {clock_time(job['started_at'])}, " + (
        f"finished {clock_time(job['finished_at'])}, attempts {job['attempts']}"
    )
    if job["interruptions"]:
        yield f"    interrupted {job['interruptions']} times by the death of the daemon"
    if state == State.PENDING and job["not_before"]:
        yield f"    waits until {clock_time(job['not_before'])} for its next attempt"
    if job["error"]:
        yield f"    {job['error_kind']}: {printable(job['error'])}"
        yield f"    → {job['hint']}"
    if job["output"]:
        yield f"    output {printable(job['output'])} by {job['engine']} {job['engine_version']}"
    if job["disposal"]:
        yield "    its source is about to be disposed of"
    if job["submitted"]:
        kept = "its copy is kept in state_dir" if job["location"] else "its copy is no longer kept"
        yield f"    handed in by convertd submit; {kept}"
    elif job["location"]:
        yield f"    its source was moved to {display(job['location'])}"
    if state == State.FAILED:
        yield f"    try again: convertd retry {job['id']}"


def _conditions(place: Place, paused: switches.Paused) -> Iterator[str]:
    live = place.live()
    if live is None:
        yield "the daemon is not running"
        if paused.all:
            yield "all watches are paused by `convertd pause` (go on: convertd resume)"
        for name in [] if paused.all else sorted(paused.watches):
            yield f"watch {name} is paused: {paused.reason(name)}"
        return
    for name, watch in live["watches"].items():
        if watch["error"]:
            yield f"watch {name} is {watch['state']}: {watch['error']}"

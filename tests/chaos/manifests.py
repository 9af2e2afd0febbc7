"""What becomes of batches: a manifest in the sink with a line for each document, and somebody who is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from tests.chaos.layout import Watch
from tests.chaos.model import SUBMITTED, Document, Model
from tests.chaos.outputs import MANIFEST
from tests.chaos.world import World

SHOWN = 3


class Line(NamedTuple):
    """Of a manifest, or what it must be by the job table."""

    job: int
    source: str
    state: str
    output: str | None
    sha256: str | None
    markdown_sha256: str | None


def unwritten(world: World) -> Iterator[str]:
    """Batches that wait for their manifest and for nothing else. One that is complete has its news recorded."""
    for watch, batch in world.rows(_UNWRITTEN):
        yield f"batch {watch}/{batch} has ended and waits for its manifest"


def wrong(world: World, model: Model) -> Iterator[str]:
    """What is wrong with the manifests of complete batches, and with what was told. For a world in which nothing is
    going on."""
    named: set[tuple[str, str, str]] = set()
    told = [event for event in world.events() if event["kind"] == "batch-complete"]
    for number, watch, batch in world.rows(_COMPLETE):
        lines = _lines(world.watches[watch].sink.read(batch + MANIFEST) or b"")
        named |= {(watch, batch, line.source) for line in lines}
        yield from _compared(world, number, f"{watch}/{batch}", lines)
        jobs = dict(world.rows(_COUNTED, number))
        if not any((event["watch"], event["batch"], event["jobs"]) == (watch, batch, jobs) for event in told):
            yield f"nobody was told that batch {watch}/{batch} is complete with {jobs}"
    for document in model:
        batch_name = batch_of(world.watches[document.watch], document)
        wanted = batch_name is not None and document.current is not None
        if wanted and (document.watch, batch_name, document.name) not in named:
            yield f"no manifest of {document.watch}/{batch_name} names {document.name}"


def batch_of(watch: Watch, document: Document) -> str | None:
    """The batch that a document belongs to, by its name."""
    folder, slash, _ = document.name.removeprefix(SUBMITTED).partition("/")
    return folder if slash and (document.submitted or watch.batched) else None


def _compared(world: World, number: int, about: str, lines: list[Line]) -> Iterator[str]:
    """A manifest has a line for the newest job of each document, and no other."""
    rows = world.rows(_NEWEST, number)
    wanted = [Line(job, os.fsdecode(source), *more) for job, source, *more in rows]
    if sorted(lines, key=lambda line: line.job) != wanted:
        lacking = [line for line in wanted if line not in lines][:SHOWN]
        yield f"the manifest of {about} lacks {lacking} of {len(wanted)} lines, and has {len(lines)}"


def _lines(content: bytes) -> list[Line]:
    """Those that are whole."""
    lines = []
    for text in content.splitlines():
        with suppress(ValueError, KeyError):
            facts = json.loads(text)
            lines.append(Line(*(facts[name] for name in Line._fields)))
    return lines


_UNWRITTEN = """SELECT w.name, b.name FROM batches b JOIN watches w ON w.id = b.watch
                WHERE b.completed_at IS NULL AND b.unfinished = 0"""
_COMPLETE = """SELECT b.id, w.name, b.name FROM batches b JOIN watches w ON w.id = b.watch
               WHERE b.completed_at IS NOT NULL"""
_COUNTED = "SELECT state, count(*) FROM jobs WHERE batch = ? GROUP BY state"
_NEWEST = """SELECT max(id), source, state, output, sha256, markdown_sha256 FROM jobs WHERE batch = ?
             GROUP BY source ORDER BY 1"""
"""Beside a `max` SQLite gives what the row has that is the greatest."""

"""`convertd batch`: how far a batch is, and its results."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from daemon import batches, queries
from daemon.batches import Batch, Document, Rows
from daemon.cli.common import Place, batch_command, clock_time, locate, place_options, print_json
from daemon.db import Connection, Row
from daemon.errors import ConvertdError, UsageError
from daemon.model import display, printable
from daemon.results import MARKDOWN, SIDECAR, rfc3339

if TYPE_CHECKING:
    from daemon.sinks.base import Sink

MOST_FAILURES = 1000
FEW_FAILURES = 20
TRIES = 3
TIMES = ("first_added_at", "last_added_at", "manifest_at")


@click.command("batch")
@click.argument("name")
@place_options
@click.option("--name", "watch", help="Only the batch of this watch; else those of this name of all watches.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--jsonl", "as_lines", is_flag=True, help="Print one JSON line a document, with its Markdown.")
def command(
    name: str, config_path: str | None, state_dir: str | None, watch: str | None, as_json: bool, as_lines: bool
) -> None:
    """Show how far a batch is, or export its results.

    A batch is what was submitted under its NAME or, of a watch with batch = "subfolder", a first-level folder. It is
    complete when all its jobs have ended and nothing new has come for 60 s; what comes later opens it again.
    """
    if as_json and as_lines:
        raise UsageError("either --json or --jsonl", "")
    place = locate(config_path, state_dir)
    with place.table() as db:
        rows = partial(_rows, db)
        found = batches.named(rows, name, watch)
        if not found:
            where = f" of watch {watch}" if watch else ""
            raise UsageError(f"there is no batch {printable(name)}{where}", "It may have been pruned with its jobs.")
        if as_lines:
            missing = sum(_export(rows, batch, _sink_of(place, db, batch)) for batch in found)
            if missing:
                click.echo(f"{missing} results are not in the sink any more, or could not be read", err=True)
                raise SystemExit(1)
            return
        reports = [_report(rows, batch, MOST_FAILURES if as_json else FEW_FAILURES) for batch in found]
    if as_json:
        print_json(_together(name, reports), indent=2)
    else:
        for report in reports:
            _print(report)


def _rows(db: Connection, sql: str, bindings: tuple[Any, ...]) -> list[Row]:
    return list(db.execute(sql, bindings))


# -- progress --------------------------------------------------------------------------------------------------------


def _report(rows: Rows, batch: Batch, failures: int) -> dict[str, Any]:
    why_open = batch.why_open(time.time())
    return {
        "batch": batch.name,
        "watch": batch.watch,
        "complete": why_open is None,
        "reason": why_open,
        "jobs": _by_state(batches.counts(rows, batch)),
        "first_added_at": batch.created_at,
        "last_added_at": batch.last_added_at,
        "manifest_at": batch.completed_at,
        "failures": [_failure(document) for document in batches.failures(rows, batch, failures)],
    }


def _by_state(counts: Mapping[str, int]) -> dict[str, int]:
    return dict.fromkeys((state.value for state in queries.FINAL_AND_OPEN), 0) | dict(counts)


def _failure(document: Document) -> dict[str, Any]:
    facts = document.facts()
    return {key: facts[key] for key in ("source", "job", "error_kind", "error", "hint")}


def _together(name: str, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One object, also where several watches have a batch of this name."""
    jobs: dict[str, int] = {}
    for report in reports:
        for state, number in report["jobs"].items():
            jobs[state] = jobs.get(state, 0) + number
    reasons = [report["reason"] for report in reports if report["reason"]]
    return {
        "batch": name,
        "complete": not reasons,
        "reason": "; ".join(reasons) or None,
        "jobs": jobs,
        "first_added_at": rfc3339(min(report["first_added_at"] for report in reports)),
        "last_added_at": rfc3339(max(report["last_added_at"] for report in reports)),
        "failures": [{"watch": report["watch"], **failure} for report in reports for failure in report["failures"]],
        "watches": [_of_watch(report) for report in reports],
    }


def _of_watch(report: dict[str, Any]) -> dict[str, Any]:
    part = {key: report[key] for key in report if key not in ("batch", "failures")}
    for key in TIMES:
        part[key] = None if part[key] is None else rfc3339(part[key])
    return part


def _print(report: dict[str, Any]) -> None:
    jobs = report["jobs"]
    total = sum(jobs.values())
    ended = total - jobs["pending"] - jobs["processing"]
    condition = "complete" if report["complete"] else f"not complete: {report['reason']}"
    click.echo(f"{printable(report['batch'])} (watch {report['watch']}): {ended} of {total} done, {condition}")
    click.echo("  " + "  ".join(f"{state} {number}" for state, number in jobs.items()))
    click.echo(f"  first added {clock_time(report['first_added_at'])}, last {clock_time(report['last_added_at'])}")
    for failure in report["failures"]:
        why = f"{failure['error_kind']}: {printable(failure['error'])}"
        click.echo(f"  failed: {printable(failure['source'])} (job {failure['job']})   {why}")
    if (more := jobs["failed"] - len(report["failures"])) > 0 and len(report["failures"]) >= FEW_FAILURES:
        click.echo(f"  … and {more} more: {batch_command(report['batch'], '--json')}")


# -- export ----------------------------------------------------------------------------------------------------------


def _sink_of(place: Place, db: Connection, batch: Batch) -> Sink:
    from daemon import sinks
    from daemon.s3.clients import Clients
    from daemon.sinks.base import Surroundings

    for watch in place.watches(db):
        if watch.name == batch.watch:
            return sinks.build(watch, Surroundings(Clients(1)))
    raise UsageError(
        f"watch {batch.watch} is not configured, so nobody knows where its results are",
        "Name the configuration that has it: --config FILE.",
    )


def _export(rows: Rows, batch: Batch, sink: Sink) -> int:
    """Print a line for each document, one after the other; returns how many completed ones have no result."""
    missing = 0
    for document in batches.documents(rows, batch):
        markdown, metadata = _result(sink, document)
        missing += document.state == "completed" and markdown is None
        line = {"batch": batch.name, "watch": batch.watch, **document.facts()}
        print_json(line | {"markdown": markdown, "metadata": metadata})
    return missing


def _result(sink: Sink, document: Document) -> tuple[str | None, Any]:
    """The Markdown and the sidecar of a converted document; None for what is not there."""
    from daemon.naming import output_name

    if document.state != "completed":
        return None, None
    name = output_name(document.source, sink.name_bytes)
    try:
        markdown, metadata = _pair(sink, name)
    except ConvertdError as error:
        click.echo(f"{display(document.source)}: {printable(error.message)}", err=True)
        return None, None
    return None if markdown is None else markdown.decode("utf-8", "replace"), metadata


def _pair(sink: Sink, name: str) -> tuple[bytes | None, Any]:
    """Both of one version: they are published one after the other, and may be just now."""
    import hashlib

    for _ in range(TRIES):
        markdown, sidecar = sink.read(name, MARKDOWN), sink.read(name, SIDECAR)
        if markdown is None or sidecar is None:
            return markdown, None
        try:
            metadata = json.loads(sidecar)
            digest = metadata["markdown_sha256"]
        except (ValueError, KeyError, TypeError):
            return markdown, None  # somebody else's file
        if digest == hashlib.sha256(markdown).hexdigest():
            return markdown, metadata
    return markdown, metadata

"""`convertd plan`: what would be taken, and where it would go."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import click

from daemon import config as configuration
from daemon import plan, queries, switches
from daemon.cli.common import Place, locate, place_options, print_json
from daemon.config import Watch
from daemon.db import Connection
from daemon.errors import ConvertdError, EnvironmentProblem, UsageError
from daemon.ground import LONG_SECONDS, Patience, answers
from daemon.words import display, printable

FAILS = {
    "empty": "empty",
    "too_large": "larger than limits.file_size",
    "unsupported_format": "of a format that is not read",
}
BLIND = "a queue cannot be looked into ahead: it tells of objects as they come"
SILENT = "its source or its sink does not answer"
UNBORN = "the folder is not there yet: convertd makes it at its start"


@click.command("plan")
@place_options
@click.option("--name", "watch_name", help="Only this watch.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="At most so many rows a watch.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(config_path: str | None, state_dir: str | None, watch_name: str | None, limit: int, as_json: bool) -> None:
    """Tell what each watch would take now, what of it would fail, and where results would go. Changes nothing.

    Exit code 1 where a source could not be looked through.
    """
    place = locate(config_path, state_dir)
    with ExitStack() as stack:
        db = _table(place, stack)
        watches = [watch for watch in _watches(place, db) if watch_name in (None, watch.name)]
        if not watches:
            raise UsageError(f"there is no watch {watch_name}", "convertd status lists them.")
        patience = Patience(LONG_SECONDS)
        looks = [Look(place, watch, db, limit, patience) for watch in watches]
        if as_json:
            print_json({"watches": [look.facts() for look in looks]}, indent=2)
        else:
            for look in looks:
                for line in look.lines():
                    click.echo(line)
    if any(look.error for look in looks):
        raise SystemExit(1)


def _table(place: Place, stack: ExitStack) -> Connection | None:
    """The job table; None where nothing has run yet, as everything is new then."""
    if place.config is not None and not os.path.exists(place.state.database):
        return None
    return stack.enter_context(place.table())


def _watches(place: Place, db: Connection | None) -> list[Watch]:
    if db is None:
        return list(place.config.watches) if place.config else []
    return place.watches(db)


class Look:
    """A look at one watch, for people or as JSON. `error` is set once its source turns out not to be readable."""

    def __init__(self, place: Place, watch: Watch, db: Connection | None, limit: int, patience: Patience) -> None:
        self._limits = (place.config or configuration.defaults()).limits
        self._watch = watch
        self._db = db
        self._limit = limit
        self._forecast: plan.Forecast | None = None
        self.error: ConvertdError | None = None
        if not patience.answered(self._is_there, False):
            self.error = EnvironmentProblem(SILENT, "Mend its mount; convertd doctor tells which.")
        self._note = BLIND if watch.prefix else UNBORN if not self.error and self._is_unborn() else None

    def lines(self) -> Iterator[str]:
        """What people read; rows come as they are found."""
        yield f"{self._watch.name}: {_place(self._watch.source)} → {_place(self._watch.sink)}"
        for entry in self._entries():
            fails = f"   fails: {FAILS[entry.fails]}" if entry.fails else ""
            size = f"{entry.size_bytes:>14,}"
            yield f"  {entry.news:<7} {size}  {display(entry.source)} → {printable(entry.output)}{fails}"
        yield from map("  {}".format, self._sums())
        yield ""

    def facts(self) -> dict[str, Any]:
        """The JSON form."""
        documents = [
            {
                "source": display(entry.source),
                "news": entry.news,
                "size_bytes": entry.size_bytes,
                "output": entry.output,
                "fails": entry.fails,
            }
            for entry in self._entries()
        ]
        found = self._forecast
        return {
            "name": self._watch.name,
            "source": _place(self._watch.source),
            "sink": _place(self._watch.sink),
            "note": self._note,
            "paused": self._paused(),
            "error": self.error.message if self.error else None,
            "new": found.news[plan.NEW] if found else 0,
            "changed": found.news[plan.CHANGED] if found else 0,
            "known": found.known if found else 0,
            "size_bytes": found.size_bytes if found else 0,
            "renamed": found.renamed if found else 0,
            "fails": dict(found.failing) if found else {},
            "passed_over": [
                {"rule": rule, "files": number, "example": display(found.examples[rule])}
                for rule, number in found.passed_over.most_common()
            ]
            if found
            else [],
            "collisions": [
                {"output": output, "sources": [display(first), display(second)]}
                for output, first, second in (found.collisions if found else ())
            ],
            "documents": documents,
        }

    def _entries(self) -> Iterator[plan.Entry]:
        """The first entries; the others are only counted."""
        if self._note or self.error:
            return
        self._forecast = self._build()
        try:
            for number, entry in enumerate(self._forecast.entries()):
                if number < self._limit:
                    yield entry
        except ConvertdError as error:
            self.error = error

    def _build(self) -> plan.Forecast:
        from daemon import sinks, sources
        from daemon.s3.clients import Clients
        from daemon.sinks.base import Surroundings as SinkSurroundings
        from daemon.sources.base import Surroundings

        sink = sinks.build(self._watch, SinkSurroundings(Clients(1)))
        return plan.Forecast(
            sources.build(self._watch, Surroundings.for_looking()),
            self._versions,
            name_bytes=sink.name_bytes,
            file_size_bytes=self._limits.file_size_bytes,
            folds=sink.folds(),
        )

    def _versions(self, documents: Sequence[bytes]) -> dict[bytes, str]:
        return queries.versions(self._db, self._watch.name, documents) if self._db is not None else {}

    def _paused(self) -> str | None:
        return switches.read(self._db.execute).reason(self._watch.name) if self._db is not None else None

    def _is_there(self) -> bool:
        return all(answers(place) for place in (self._watch.source, self._watch.sink) if os.path.isabs(place))

    def _is_unborn(self) -> bool:
        """Whether the source is missing for no other reason than that nothing has run yet."""
        source = self._watch.source
        if not os.path.isabs(source) or os.path.lexists(source) or not os.path.isdir(os.path.dirname(source)):
            return False
        return self._db is None or all(name != self._watch.name for name, _, _ in queries.watches(self._db))

    def _sums(self) -> Iterator[str]:
        if self._note:
            yield self._note
        if paused := self._paused():
            yield f"! paused {paused}"
        if self.error is not None:
            yield f"! {self.error.message}"
            yield f"  → {self.error.hint}"
        found = self._forecast
        if found is None:
            return
        total = found.news.total()
        if total > self._limit:
            yield f"… and {total - self._limit:,} more (--limit)"
        yield f"takes {total:,} documents of {found.size_bytes:,} bytes: {found.news[plan.NEW]:,} new, " + (
            f"{found.news[plan.CHANGED]:,} changed; {found.known:,} are known and stay as they are"
        )
        for kind, number in found.failing.most_common():
            yield f"{number:,} would fail: {FAILS[kind]}, such as {display(found.examples[kind])}"
        for rule, number in found.passed_over.most_common():
            yield f"{number:,} passed over: {rule}; such as {display(found.examples[rule])}"
        if found.renamed:
            yield f"{found.renamed:,} results are called otherwise, as names were unsafe, too long or in the way"
        for output, first, second in found.collisions:
            yield f"! {display(first)} and {display(second)} would both become {printable(output)}: rename one of them"


def _place(location: str) -> str:
    return display(os.fsencode(location))

"""The picture of `convertd status --watch`. The only part of the commands that draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from daemon.cli import notes
from daemon.cli.snapshot import Snapshot, Work, duration
from daemon.words import printable

WATCHES = 20
BAR_CELLS = 40
STYLES = {"running": "green", "paused": "yellow", "stalled": "yellow", "stopped": "dim"}
COUNTS = ("pending", "processing", "completed", "failed")

Piece = tuple[str, str]
"""Text and its style."""


class Screen:
    """Draws snapshots over each other, and only where what is to be seen has changed."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(), auto_refresh=False, vertical_overflow="ellipsis")
        self._drawn: list[list[Piece]] = []
        self._ended_before: int | None = None

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show this from now on."""
        if self._ended_before is None:
            self._ended_before = snapshot.ended_jobs
        lines = list(picture(snapshot, max(0, snapshot.ended_jobs - self._ended_before)))
        if lines != self._drawn:
            self._drawn = lines
            self._live.update(_text(lines), refresh=True)


def picture(snapshot: Snapshot, done: int) -> Iterator[list[Piece]]:
    """The lines of one snapshot; `done` is how many jobs have ended since the watching began.

    Put together by hand: rich's tables take longer to be laid out than all else that a look takes. Nothing is markup,
    as names and errors come from documents.
    """
    yield [(_headline(snapshot.status), "bold")]
    yield _progress(snapshot, done)
    yield []
    yield from _watches(snapshot.status["watches"])
    yield from ([(trouble, "yellow")] for trouble in notes.troubles(snapshot.status))
    if snapshot.work:
        yield from ([], [("at work", "bold")])
        yield from map(_work, snapshot.work)
    if snapshot.failures:
        yield from ([], [("last failures", "bold")])
        yield from map(_failure, snapshot.failures)


def _text(lines: Sequence[Sequence[Piece]]) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, line in enumerate(lines):
        if number:
            text.append("\n")
        for piece, style in line:
            text.append(piece, style or None)
    return text


def _headline(status: dict[str, Any]) -> str:
    daemon = status["daemon"]
    if not daemon["running"]:
        return "convertd is not running (start it: convertd run)"
    if daemon["version"] is None:
        return f"convertd runs as pid {daemon['pid']} but does not answer"
    up = duration(daemon["uptime_seconds"])
    return f"convertd {daemon['version']}, pid {daemon['pid']}, {daemon['state']}, up {up}"


def _progress(snapshot: Snapshot, done: int) -> list[Piece]:
    total = done + snapshot.open_jobs
    full = BAR_CELLS * done // total if total else BAR_CELLS
    left = snapshot.seconds_left
    oldest = snapshot.status["oldest_pending_seconds"]
    parts = [f"{done:,} of {total:,}", f"{snapshot.status['documents_per_second']:.1f}/s"]
    parts += [f"{duration(left)} left"] if left is not None else []
    parts += [f"the oldest waits for {duration(oldest)}"] if oldest is not None else []
    return [("━" * full, "green"), ("━" * (BAR_CELLS - full), "dim"), (f"  {', '.join(parts)}", "")]


def _watches(watches: list[dict[str, Any]]) -> Iterator[list[Piece]]:
    shown = watches[:WATCHES]
    width = max((len(watch["name"]) for watch in shown), default=0)
    yield [(f"{'watch':<{width}}  {'state':<9}" + "".join(f"{count:>12}" for count in COUNTS), "dim")]
    for watch in shown:
        numbers = "".join(f"{watch['jobs'][count]:>12,}" for count in COUNTS)
        state = watch["state"]
        yield [(f"{watch['name']:<{width}}  ", ""), (f"{state:<9}", STYLES.get(state, "")), (numbers, "")]
    for watch in shown:
        if watch["error"]:
            yield [(f"! {watch['name']}: {printable(watch['error'])}", "yellow")]
    if len(watches) > WATCHES:
        yield [(f"… and {len(watches) - WATCHES} more", "dim")]


def _work(work: Work) -> list[Piece]:
    return [(f"{duration(work.seconds):>10}  {work.stage:<10}  {work.source} (job {work.job})", "")]


def _failure(job: dict[str, Any]) -> list[Piece]:
    return [(f"job {job['id']}  {job['source']}  {job['error_kind']}: {printable(job['error'] or '')}", "red")]

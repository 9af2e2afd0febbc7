"""`convertd status --watch`: what goes on, until Ctrl-C.

On a terminal a picture that is drawn anew when something in it has changed, elsewhere a line for each change, with
--json an object a line. One connection to the job table is kept open; what is read from it does not grow with history.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import click

from daemon.cli import notes
from daemon.cli.common import Place, clock_time, print_json
from daemon.cli.snapshot import Snapshot, duration, take

DRAWN_SECONDS = 0.5
LINE_SECONDS = 1.0


def follow(place: Place, *, as_json: bool) -> None:
    """Show the status until Ctrl-C."""
    try:
        if as_json:
            _repeat(place, LINE_SECONDS, lambda snapshot: print_json(snapshot.status))
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            from daemon.cli.screen import Screen

            with Screen() as screen:
                _repeat(place, DRAWN_SECONDS, screen.show)
        else:
            _repeat(place, LINE_SECONDS, Lines().show)
    except KeyboardInterrupt:
        pass


def _repeat(place: Place, seconds: float, show: Callable[[Snapshot], None]) -> None:
    with place.table() as db:
        while True:
            show(take(place, db))
            sys.stdout.flush()
            time.sleep(seconds)


class Lines:
    """For who keeps a log, or reads through a pipe: a line when the counts have changed, one for each watch whose state
    has, and one for each target of notifications that begins to fail, fails otherwise, or takes events again."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def show(self, snapshot: Snapshot) -> None:
        status = snapshot.status
        counts = "  ".join(f"{state} {number}" for state, number in status["jobs"].items())
        if self._is_news("", f"{status['daemon']['state']}  {counts}"):
            left = snapshot.seconds_left
            more = f"  {status['documents_per_second']:.1f}/s" if status["daemon"]["running"] else ""
            self._say(f"{self._said['']}{more}{f', {duration(left)} left' if left is not None else ''}")
        for watch in status["watches"]:
            if self._is_news(watch["name"], f"{watch['state']}{': ' + watch['error'] if watch['error'] else ''}"):
                self._say(f"watch {watch['name']} is {self._said[watch['name']]}")
        for target, trouble in notes.news(status):
            if self._is_news(f"notify {target}", trouble, before=""):
                self._say(f"notify {target}: {trouble or 'events are delivered again'}")

    def _is_news(self, about: str, text: str, before: str | None = None) -> bool:
        """Whether it is not what was said of that last, `before` if nothing was."""
        before = self._said.get(about, before)
        self._said[about] = text
        return before != text

    def _say(self, text: str) -> None:
        click.echo(f"{clock_time(time.time())}  {text}")

"""When `run --once` is at its end, and with which exit code."""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.dispatch import Dispatcher
from daemon.disposal import Janitor
from daemon.logs import Log
from daemon.roster import OPERATOR, RETIRED, Roster
from daemon.tally import Tally

SICK_SECONDS = 60.0
UNREADY_SECONDS = 60.0
LOOK_SECONDS = 0.05
RECHECK_SECONDS = 0.6
HELD_BACK = {
    OPERATOR: "jobs are held back by `convertd pause`",
    RETIRED: "jobs wait for their watches to be configured again",
}
"""Why a watch is paused for longer than `--once` waits, and what is said of its jobs then."""


class Once:
    """At its end everything that was there is converted and disposed of, or will not be.

    What an operator holds back is not waited for. Asked again and again by one thread.
    """

    def __init__(
        self,
        roster: Roster,
        dispatcher: Dispatcher,
        janitor: Janitor,
        tally: Tally,
        log: Log,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roster = roster
        self._dispatcher = dispatcher
        self._janitor = janitor
        self._tally = tally
        self._log = log
        self._monotonic = monotonic
        self._progress = (-1, -1)
        self._asked_at = monotonic()
        self._sick_seconds = self._well_seconds = 0.0
        self._idle_since: float | None = None

    def exit_code(self) -> int | None:
        """The exit code, once it is known."""
        now = self._monotonic()
        progress = (self._tally.ended, self._tally.changed)
        if self._progress != progress:
            self._progress = progress
            self._sick_seconds, self._well_seconds, self._idle_since = 0.0, 0.0, None
        posts = self._roster.posts()
        # The order of the questions matters: a file leaves discovery after it is queued, and the queue after it is
        # due for disposal.
        left = {post.route.watch: post.discovery.left for post in posts}
        held_back = self._dispatcher.held_back(HELD_BACK)
        seen_all = None not in left.values()
        idle = seen_all and self._dispatcher.idle(but_for=held_back)
        if self._sick_for_long(now, any(post.health.sick for post in posts), seen_all):
            self._log.error("giving up: the surroundings are sick", seconds=SICK_SECONDS)
            return 1
        if not idle:
            self._idle_since = None
            return None
        self._idle_since = self._idle_since or now
        unready = {watch: number for watch, number in left.items() if number and watch.name not in held_back}
        undisposed = self._janitor.backlog()
        if not unready and not undisposed:
            # A document found changed goes back to discovery, which takes a moment to look at it.
            if now - self._idle_since < (RECHECK_SECONDS if self._tally.changed else LOOK_SECONDS / 2):
                return None
            self._tell_what_is_held_back()
            return 1 if self._tally.failed else 0
        settle_seconds = max((watch.settle_seconds for watch in unready), default=0.0)
        if now - self._idle_since <= settle_seconds + UNREADY_SECONDS:
            return None
        self._log.error(
            "giving up on files that do not become free",
            still_written=sum(unready.values()),
            not_disposed_of=undisposed,
        )
        return 1

    def _sick_for_long(self, now: float, sick: bool, seen_all: bool) -> bool:
        """In sum, since something last came to an end. Where a source falls sick again before all of it has been seen,
        the time in between counts, too, unless there was work."""
        seconds, self._asked_at = now - self._asked_at, now
        if sick:
            self._sick_seconds += self._well_seconds + seconds
            self._well_seconds = 0.0
        elif self._sick_seconds and not seen_all and not self._dispatcher.running():
            self._well_seconds += seconds
        return self._sick_seconds > SICK_SECONDS

    def _tell_what_is_held_back(self) -> None:
        for reason, event in HELD_BACK.items():
            held_back = self._dispatcher.census(self._dispatcher.held_back([reason]))
            if held_back.pending or held_back.more:
                self._log.warning(event, jobs=held_back.pending, more=held_back.more)

"""The watches that are served now, and how a reload changes them.

A watch is its name. One that is no longer configured is retired: its discovery ends, what is running is brought to its
end, what is pending stays in the job table until the watch comes back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from daemon.config import Watch
from daemon.discovery import Discovery
from daemon.dispatch import Dispatcher
from daemon.errors import EnvironmentProblem
from daemon.health import Condition, Health
from daemon.jobs import JobTable
from daemon.manifests import Manifests
from daemon.pipeline import Route
from daemon.sources.base import Source
from daemon.switches import Paused, Switches

OPERATOR = "operator"
RETIRED = "retired"


@dataclass(frozen=True)
class Post:
    """A watch being served: `stop` ends its discovery and its health's checks."""

    route: Route
    health: Health
    discovery: Discovery
    manifests: Manifests
    stop: threading.Event

    def sweep(self) -> None:
        """Remove what interrupted publishes have left in the sink."""
        try:
            self.route.sink.sweep()
        except EnvironmentProblem as problem:
            self.health.fell_ill(problem)


@dataclass(frozen=True)
class Change:
    """What a reload did: posts to be ended and posts to be begun, and the names of the watches."""

    ended: tuple[Post, ...]
    begun: tuple[Post, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class Roster:
    """`serve` is called by one thread; everything else may be read from any.

    `routes` and `health` know the retired watches too, for the jobs and disposals that they have left. While watches
    get the sources that they are to have, `departing` is entered with these: it may have to do with the old ones.
    """

    def __init__(
        self,
        build: Callable[[Watch], Post],
        jobs: JobTable,
        dispatcher: Dispatcher,
        switches: Switches,
        departing: Callable[[Mapping[str, str]], AbstractContextManager[None]] = lambda sources: nullcontext(),
    ) -> None:
        self._build = build
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._switches = switches
        self._departing = departing
        self._posts: dict[str, Post] = {}
        self._heeding = threading.Lock()
        self._paused = Paused(False, frozenset())
        self.routes: dict[str, Route] = {}
        self.health: dict[str, Health] = {}

    def posts(self) -> list[Post]:
        """Those that are served."""
        return list(self._posts.values())

    def serves(self, watch: str) -> bool:
        """Whether this watch is."""
        return watch in self._posts

    def watches(self) -> list[Watch]:
        """Those that are served, in the order in which they are configured."""
        return [post.route.watch for post in self.posts()]

    def note(self, watch: str, text: str | None) -> None:
        """Show this with a watch, if it has been served since the start."""
        if watch in self.health:
            self.health[watch].note(text)

    def served(self) -> dict[str, Source]:
        """The sources of those that are served, by watch."""
        return {name: post.route.source for name, post in list(self._posts.items())}

    def serve(self, watches: Iterable[Watch]) -> Change:
        """Serve these and no others from now on. Raises EnvironmentProblem, with nothing changed, where the job table
        cannot be written; the caller begins and ends the threads of the posts."""
        paused = self._switches.paused()  # first of all, as it may not be possible
        wanted = {watch.name: watch for watch in watches}
        before = dict(self._posts)
        removed = tuple(name for name in before if name not in wanted)
        changed = tuple(name for name in before if name in wanted and before[name].route.watch != wanted[name])
        added = tuple(name for name in wanted if name not in before)
        with self._departing({name: wanted[name].source for name in (*added, *changed)}):
            for name in (*added, *changed):
                self._jobs.register(name, wanted[name].source, wanted[name].sink)
            for name in removed:
                self._dispatcher.pause(name, RETIRED)
                del self._posts[name]
            for name in (*removed, *changed):
                before[name].health.retire()
            begun = tuple(self._begin(wanted[name], paused) for name in (*added, *changed))
        self._posts = {name: self._posts[name] for name in wanted}
        return Change(tuple(before[name] for name in (*removed, *changed)), begun, added, removed, changed)

    def conditions(self) -> dict[str, Condition]:
        """For `status`: how those that are served are, by watch."""
        return {
            name: _with_pause(post.health.condition(), self._paused.reason(name))
            for name, post in list(self._posts.items())
        }

    def heed_switches(self) -> None:
        """Pause and resume as the operators have it."""
        with self._heeding:  # whoever comes last has read what all have written
            paused = self._paused = self._switches.paused()
            for name in list(self.routes):
                if paused.holds(name):
                    self._dispatcher.pause(name, OPERATOR)
                else:
                    self._dispatcher.resume(name, OPERATOR)

    def _begin(self, watch: Watch, paused: Paused) -> Post:
        if not self._dispatcher.has(watch.name):  # no job of it is handed out before it can be served
            self._dispatcher.open(watch.name, {RETIRED})
        post = self._build(watch)
        self._posts[watch.name] = post
        self.routes[watch.name] = post.route
        self.health[watch.name] = post.health
        try:
            self.heed_switches()  # from here on whoever pauses finds it; before, it may have taken seconds to be made
        except EnvironmentProblem:  # half of what is to be served cannot be taken back: as it was a moment ago
            if paused.holds(watch.name):
                self._dispatcher.pause(watch.name, OPERATOR)
        self._dispatcher.resume(watch.name, RETIRED)
        return post


def _with_pause(condition: Condition, reason: str | None) -> Condition:
    """What is wrong besides stays to be seen: resuming alone would not help."""
    if reason is None:
        return condition
    return Condition("paused", f"{reason}; besides: {condition.error}" if condition.error else reason)

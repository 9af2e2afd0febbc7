"""What serves a watch: its source, its sink and all that stands between them, made from its configuration."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from daemon import events, sinks, sources
from daemon.batches import Batch, Batches
from daemon.config import Config, Watch
from daemon.db import Connection
from daemon.discovery import Discovery
from daemon.dispatch import Dispatcher
from daemon.errors import EnvironmentProblem
from daemon.faults import Fault
from daemon.ground import LONG_SECONDS, Patience, answers
from daemon.health import Health
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.manifests import Manifests
from daemon.model import display
from daemon.outbox import Outbox
from daemon.payload import Payloads
from daemon.pipeline import Route
from daemon.roster import Post
from daemon.s3.clients import Clients
from daemon.sinks.base import Surroundings as SinkSurroundings
from daemon.sources.base import Surroundings as SourceSurroundings
from daemon.sources.submitted import SubmittedSource
from daemon.statedir import StateDir
from daemon.supervisor import Stops

REMOTE_PAUSE_SECONDS = 30.0


class Builder:
    """Makes what serves a watch. `converters` raises EnvironmentProblem while none can be started."""

    def __init__(
        self,
        config: Config,
        state: StateDir,
        clients: Clients,
        jobs: JobTable,
        batches: Batches,
        outbox: Outbox,
        submitted: SubmittedSource,
        dispatcher: Dispatcher,
        converters: Callable[[], None],
        stops: Stops,
        log: Log,
        fault: Fault,
    ) -> None:
        limits = config.limits
        payloads = Payloads(state.spool, limits.in_flight_bytes, limits.spool_above_bytes, stops.slots.is_set)
        self._source = SourceSurroundings(payloads, clients, stops.slots, fault)
        self._sink = SinkSurroundings(clients, threading.BoundedSemaphore(config.uploads_concurrency), fault)
        self._slots = 2 * config.workers
        self._state = state
        self._jobs = jobs
        self._batches = batches
        self._outbox = outbox
        self._submitted = submitted
        self._dispatcher = dispatcher
        self._converters = converters
        self._log = log
        self._patience = Patience(LONG_SECONDS)

    def post(self, watch: Watch) -> Post:
        """The objects that serve this watch, no thread begun yet. It begins as a sick one where a folder is silent."""
        silent = [folder for folder in _folders(watch) if not self._patience.answered(partial(answers, folder), False)]
        source = sources.build(watch, replace(self._source, silent=silent))
        sink = sinks.build(watch, replace(self._sink, silent=watch.sink in silent))
        route = Route(watch, source, sink, self._submitted)
        health = Health(
            watch.name,
            _probe(route, self._state, self._converters),
            self._dispatcher,
            self._log,
            longest_pause_seconds=_pause_seconds(route),
        )
        stop = threading.Event()
        discovery = Discovery(route, self._jobs, self._dispatcher, health, stop, self._slots)
        manifests = Manifests(
            watch.name, sink, self._batches, self._state.spool, self._log, self._tell_of, self._outbox.announce
        )
        post = Post(route, health, discovery, manifests, stop)
        _make_missing_folders(folder for folder in _folders(watch) if folder not in silent)
        if watch.sink not in silent and not sink.remote:  # a network could hold up the start; it is swept once served
            post.sweep()
        if silent:
            what = f"{display(os.fsencode(silent[0]))}, or what it is mounted from, does not answer"
            health.fell_ill(EnvironmentProblem(what, "Mend the mount; the watch goes on by itself."))
        return post

    def _tell_of(self, db: Connection, batch: Batch, jobs: Mapping[str, int], output: str) -> None:
        """Within the transaction that completes a batch."""
        if self._outbox.wanted:
            self._outbox.record(db, events.batch_complete(batch.watch, batch.name, jobs, output, time.time()))


def _folders(watch: Watch) -> list[str]:
    places = (watch.source, watch.sink, watch.on_success.target, watch.on_failure.target)
    return [place for place in places if os.path.isabs(place)]


def _make_missing_folders(folders: Iterable[str]) -> None:
    """At start a folder that is missing beside an existing parent is made; one that vanishes later is a sick disk."""
    for folder in folders:
        if os.path.isdir(os.path.dirname(folder)):
            with suppress(OSError):
                os.mkdir(folder)


def _pause_seconds(route: Route) -> float:
    """How rarely a sick watch is probed: requests to a server cost, a look at a disk does not."""
    local = not route.sink.remote and "://" not in route.watch.source
    return 0.0 if local else REMOTE_PAUSE_SECONDS


def _probe(route: Route, state: StateDir, converters: Callable[[], None]) -> Callable[[int], None]:
    """Are the surroundings of a watch in order: the converters, its source, its sink and the spool?"""

    def probe(size_bytes: int) -> None:
        converters()
        route.source.probe()
        route.sink.probe(size_bytes)
        probe_spool(state.spool)

    return probe


def probe_spool(spool: str) -> None:
    """Write, sync and remove a canary. Raises EnvironmentProblem."""
    canary = os.path.join(spool, f".canary-{threading.get_ident()}")
    try:
        with open(canary, "wb") as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
        os.unlink(canary)
    except OSError as error:
        with suppress(OSError):
            os.unlink(canary)
        raise EnvironmentProblem(
            f"state_dir cannot be written: {error.strerror}: {spool}",
            "Free space, or mend the permissions; convertd goes on by itself.",
        ) from error

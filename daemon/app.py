"""The composition root: turns a configuration into running objects. Nothing else constructs more than its own parts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from daemon import sinks, sources
from daemon.config import Config, Watch, check_engines, check_languages
from daemon.control import ControlServer
from daemon.converters import REGISTRY, ROUTES
from daemon.converters.base import Options
from daemon.converters.tessdata import available_languages, tessdata_dir_for
from daemon.db import Readers, Writer
from daemon.discovery import Discovery
from daemon.dispatch import Dispatcher
from daemon.disposal import Janitor
from daemon.errors import EnvironmentProblem
from daemon.faults import Fault, no_fault
from daemon.files import ignore_lease_breaks
from daemon.health import Health
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.model import Disposal
from daemon.operations import Operations
from daemon.payload import Payloads
from daemon.pipeline import Pipeline, Route
from daemon.pool import ChildSettings, ConverterPool
from daemon.s3.clients import Clients
from daemon.sinks.base import Sink
from daemon.sinks.base import Surroundings as SinkSurroundings
from daemon.sources.base import Surroundings as SourceSurroundings
from daemon.statedir import StateDir
from daemon.supervisor import Parts, Supervisor, Tally
from daemon.worker import Worker

LOCK_WAIT_SECONDS = 5.0
SPARE_WORKERS = 8
DOWNLOAD_THREADS = 16
REMOTE_PAUSE_SECONDS = 30.0


def installed(config: Config) -> list[str]:
    """What the configuration asks for and this machine lacks, as mistakes: engines, OCR languages."""
    mistakes = check_engines(config, REGISTRY, ROUTES)
    if config.ocr.mode != "off":
        mistakes += check_languages(config, available_languages(config.ocr.tessdata_dir))
    return mistakes


def converter_pool(config: Config, *, size: int, on_event: Callable[[str, dict[str, object]], None]) -> ConverterPool:
    """A pool of `size` converters as the configuration, which must have passed `installed`, wants them."""
    options = Options(
        ocr_mode=config.ocr.mode,
        ocr_languages=config.ocr.languages,
        tessdata_dir=""
        if config.ocr.mode == "off"
        else tessdata_dir_for(config.ocr.languages, config.ocr.tessdata_dir),
        engines=dict(config.engines),
    )
    return ConverterPool(ChildSettings(options, config.limits.converter_memory_bytes), size, on_event)


@contextmanager
def running(config: Config, log: Log, *, once: bool, fault: Fault = no_fault) -> Iterator[Supervisor]:
    """A supervisor ready to `run`, holding the lock of its state_dir.

    Raises AlreadyRunning and UsageError. `fault` is called with a label at each step that a test may want
    to break.
    """
    ignore_lease_breaks()
    state = StateDir(config.state_dir)
    pool = converter_pool(config, size=config.workers, on_event=lambda event, values: log.warning(event, **values))
    with state.lock(LOCK_WAIT_SECONDS):
        writer = Writer(state.database, fault)
        writer.start()
        try:
            yield _assemble(config, state, writer, pool, log, once=once, fault=fault)
        finally:
            writer.close()


def _assemble(
    config: Config, state: StateDir, writer: Writer, pool: ConverterPool, log: Log, *, once: bool, fault: Fault
) -> Supervisor:
    _make_missing_folders(config)
    _sweep_spool(state.spool)
    jobs = JobTable(writer, Readers(state.database))
    interrupted = jobs.recover()
    if interrupted:
        log.warning("recovered", interrupted_jobs=interrupted)
    stop_discovery, stop_slots, halt = threading.Event(), threading.Event(), threading.Event()
    workers = 2 * config.workers + SPARE_WORKERS
    clients = Clients(workers + DOWNLOAD_THREADS)
    routes = _routes(config, state, clients, stop_slots, fault)
    for watch in config.watches:
        jobs.register(watch.name, watch.source, watch.sink)
    by_name = {name: route.source for name, route in routes.items()}
    tally = Tally(time.monotonic)
    longest_delay_seconds = 1.2 * max(config.retry.backoff_seconds, default=0.0)
    dispatcher = Dispatcher(
        routes,
        jobs.pending,
        time.time,
        time.monotonic,
        longest_delay_seconds,
        running_per_watch=workers - SPARE_WORKERS // 2,
    )
    health = {
        name: Health(name, _probe(route, state), dispatcher, log, longest_pause_seconds=_pause_seconds(route))
        for name, route in routes.items()
    }
    sweeps = {name: partial(_sweep, route.sink, health[name]) for name, route in routes.items()}
    for name in [name for name, route in routes.items() if not route.sink.remote]:
        sweeps.pop(name)()  # before anything is published; what a network is asked for must not hold up the start
    janitor = Janitor(by_name, jobs, log, lambda name, text: health[name].note(text), tally.note_change)
    for job, reason in jobs.due_disposals():
        if job.watch in routes:
            janitor.add(job, _disposal(routes[job.watch].watch, reason))
    pipeline = Pipeline(jobs, pool, config.limits, stop_slots.is_set, time.time)
    worker = Worker(
        routes,
        health,
        jobs,
        dispatcher,
        pipeline,
        janitor,
        config.retry,
        _retry_command(config),
        tally.add,
        halt,
        log,
        time.time,
    )
    supervisor: Supervisor
    operations = Operations(state.database, jobs, by_name, dispatcher.add, janitor.held)
    control = ControlServer(
        state.socket,
        {
            "status": lambda request: supervisor.status() | {"pid": os.getpid()},
            "retry": operations.retry,
            "prune": operations.prune,
        },
    )
    parts = Parts(
        dispatcher=dispatcher,
        jobs=jobs,
        pool=pool,
        discoveries=[
            Discovery(routes[name], jobs, dispatcher, health[name], stop_discovery, 2 * config.workers)
            for name in routes
        ],
        workers=[worker] * workers,
        janitor=janitor,
        health=health,
        sweeps=sweeps,
        control=control,
        writer_alive=writer.alive,
        stop_fetching=clients.stop,
        stop_discovery=stop_discovery,
        stop_slots=stop_slots,
        halt=halt,
    )
    supervisor = Supervisor(parts, tally, log, once=once)
    return supervisor


def _routes(
    config: Config, state: StateDir, clients: Clients, stopping: threading.Event, fault: Fault
) -> dict[str, Route]:
    limits = config.limits
    payloads = Payloads(state.spool, limits.in_flight_bytes, limits.spool_above_bytes, stopping.is_set)
    source = SourceSurroundings(payloads, clients, stopping, fault)
    sink = SinkSurroundings(clients, threading.BoundedSemaphore(config.uploads_concurrency), fault)
    return {
        watch.name: Route(watch, sources.build(watch, source), sinks.build(watch, sink)) for watch in config.watches
    }


def _make_missing_folders(config: Config) -> None:
    """At start a folder that is missing beside an existing parent is made; one that vanishes later is a sick disk."""
    for watch in config.watches:
        for folder in (watch.source, watch.sink, watch.on_success.target, watch.on_failure.target):
            if os.path.isabs(folder) and os.path.isdir(os.path.dirname(folder)):
                with suppress(OSError):
                    os.mkdir(folder)


def _sweep(sink: Sink, health: Health) -> None:
    try:
        sink.sweep()
    except EnvironmentProblem as problem:
        health.fell_ill(problem)


def _sweep_spool(spool: str) -> None:
    """What a dead daemon left in its spool belongs to nobody."""
    for entry in os.scandir(spool):
        with suppress(OSError):
            os.unlink(entry.path)


def _pause_seconds(route: Route) -> float:
    """How rarely a sick watch is probed: requests to a server cost, a look at a disk does not."""
    local = not route.sink.remote and "://" not in route.watch.source
    return 0.0 if local else REMOTE_PAUSE_SECONDS


def _probe(route: Route, state: StateDir) -> Callable[[int], None]:
    """Are the surroundings of a watch in order: its source, its sink and the spool?"""

    def probe(size_bytes: int) -> None:
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


def _disposal(watch: Watch, reason: str) -> Disposal:
    return watch.on_success if reason == "success" else watch.on_failure


def _retry_command(config: Config) -> list[str]:
    where = ["--config", config.path] if config.path else ["--state-dir", config.state_dir]
    return ["convertd", "retry", *where]
